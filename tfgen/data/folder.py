"""`folder:PATH`: every image below a folder, with its sub-folders as classes if it has any.

`PATH/attributes.csv`, where there is one, gives their attributes: see `attributes`.
"""

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from absl import logging

from tfgen.data import images, pixels
from tfgen.data.attributes import read_attributes
from tfgen.data.pipeline import Rows, Split, Table
from tfgen.data.source import Key, Source, fits_memory, table
from tfgen.data.spec import SPLITS, DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
ON_BAD_IMAGE = ("skip", "fail")
_HELD_OUT = 0.05  # share of validation, and of test
_THREADS = 4
_CHUNK = 256  # files decoded at once


def folder_source(
    path: str, needs: tuple[str, ...], image_size: int | None, on_bad_image: str, fixed: bool
) -> Source:
    """The images below `path` as a source; all are decoded once, so damage is found at the start.

    Grey only if all images are grey. `label` where there are at least two sub-folders with images
    and no image lies beside them; classes are the sub-folders' names, sorted. `attributes` where
    they are needed and there is a file of them. The split of a file depends on its path below
    `path` alone, but for the few moved so that none is empty.

    Args:
      path: the folder.
      needs: the keys that will be used; attributes are read for these alone.
      image_size: see `images.read_pixels`; None if all images are of one size.
      on_bad_image: "skip" with a warning, or "fail".
      fixed: whether images are binarised once and for ever.
    """
    if on_bad_image not in ON_BAD_IMAGE:
        raise DataError(f"Unknown --on_bad_image {on_bad_image!r}; one of skip, fail.")
    if not os.path.isdir(path):
        raise DataError(f"folder:{path} is not a folder.")
    names = _image_names(path)
    if not names:
        raise DataError(f"folder:{path} holds no images ({' '.join(SUFFIXES)}).")
    attributes = read_attributes(path, names) if "attributes" in needs else None
    bad = _Bad(path, on_bad_image)
    headers = {}
    for name in names:
        try:
            headers[name] = images.read_header(os.path.join(path, name))
        except (images.BadImageError, OSError) as error:
            bad.add(name, error)
    shape = _image_shape(path, headers, image_size, bad)
    decoded = _decoded(path, list(headers), shape, image_size, bad)
    bad.report(len(names))
    if len(decoded) < len(SPLITS):
        raise DataError(
            f"folder:{path} holds {len(decoded)} readable images of {len(names)}; "
            "training, validation and test need at least 3."
        )
    classes = _classes(names)
    keys = {"image": Key(shape, "uint8")}
    if classes:
        keys["label"] = Key((), "int32")
    if attributes is not None:
        keys["attributes"] = Key(attributes[names[0]].shape, "float32")
    parts = split_names(sorted(decoded))

    def open_split(split: str) -> Split:
        chosen = parts[split]
        columns = {"label": np.array([classes.get(_top(name), 0) for name in chosen], np.int32)}
        if attributes is not None:
            columns["attributes"] = np.stack([attributes[name] for name in chosen])
        held = [image for image in map(decoded.get, chosen) if image is not None]
        if len(held) < len(chosen):
            return _lazy_table(path, chosen, shape, image_size, columns, split if fixed else None)
        rows = {"image": np.stack(held), **columns}
        return table(keys, len(chosen), iter([rows]), fixed=split if fixed else None)

    sizes = {split: len(parts[split]) for split in SPLITS}
    return Source(keys, len(classes) or None, sizes, open_split)


def split_names(names: list[str]) -> dict[str, list[str]]:
    """Splits at least 3 names about 90/5/5 by a hash of each; the names keep their order."""
    share = {
        name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        for name in (n.replace(os.sep, "/") for n in names)
    }
    order = sorted(names, key=lambda name: share[name.replace(os.sep, "/")])
    values = sorted(share.values())
    tests = int(np.clip(np.searchsorted(values, _HELD_OUT), 1, len(names) - 2))
    held_out = int(np.clip(np.searchsorted(values, 2 * _HELD_OUT), tests + 1, len(names) - 1))
    test, validation = set(order[:tests]), set(order[tests:held_out])
    return {
        "train": [name for name in names if name not in test and name not in validation],
        "validation": [name for name in names if name in validation],
        "test": [name for name in names if name in test],
    }


class _Bad:
    """Says what is wrong with bad files: one warning each and a count, or a DataError."""

    def __init__(self, path: str, on_bad_image: str):
        self._path, self._fail, self._count = path, on_bad_image == "fail", 0

    def add(self, name: str, reason: Exception) -> None:
        what = f"Bad image {os.path.join(self._path, name)!r}: {reason}"
        if self._fail:
            raise DataError(f"{what}; mend or remove it, or give --on_bad_image=skip.")
        logging.warning("%s; skipped.", what)
        self._count += 1

    def report(self, total: int) -> None:
        if self._count:
            logging.warning("Skipped %d of %d images in %s.", self._count, total, self._path)


def _image_names(path: str) -> list[str]:
    """Relative paths of all image files below `path`, sorted; hidden ones left out."""
    found = []
    for where, folders, files in os.walk(path):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for file in files:
            if file.lower().endswith(tuple(SUFFIXES)) and not file.startswith("."):
                found.append(os.path.relpath(os.path.join(where, file), path))
    return sorted(found)


def _top(name: str) -> str:
    return name.split(os.sep)[0]


def _classes(names: list[str]) -> dict[str, int]:
    """Class number of each sub-folder; {} if there are no classes."""
    tops = sorted({_top(name) for name in names})
    loose = any(os.sep not in name for name in names)
    return {} if loose or len(tops) < 2 else {top: number for number, top in enumerate(tops)}


def _image_shape(
    path: str, headers: dict[str, images.Header], image_size: int | None, bad: _Bad
) -> tuple[int, int, int]:
    """The shape of all images; those of an odd size are only complained of if they are readable."""
    if image_size is None and headers:
        (usual, _), *_ = Counter((h.height, h.width) for h in headers.values()).most_common(1)
        odd = {name: h for name, h in headers.items() if (h.height, h.width) != usual}
        example = next(name for name in headers if name not in odd)
        for name, header in odd.items():
            try:
                images.read_pixels(os.path.join(path, name), None, 3)
            except (images.BadImageError, OSError) as error:
                bad.add(name, error)
                del headers[name]
                continue
            raise DataError(
                f"Images in folder:{path} differ in size: {name!r} is {header.width}x"
                f"{header.height}, {example!r} {usual[1]}x{usual[0]}; give one with --image_size."
            )
    else:
        usual = (image_size or 0, image_size or 0)
    return *usual, 1 if all(header.grey for header in headers.values()) else 3


def _decoded(
    path: str, names: list[str], shape: tuple[int, int, int], size: int | None, bad: _Bad
) -> dict[str, np.ndarray | None]:
    """The pixels of each good file, or None for each if they are too many to hold."""
    hold = fits_memory({"image": Key(shape, "uint8")}, len(names))
    good: dict[str, np.ndarray | None] = {}

    def read(name: str) -> np.ndarray | Exception:
        try:
            return images.read_pixels(os.path.join(path, name), size, shape[-1])
        except (images.BadImageError, OSError) as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(names), _CHUNK):
            chunk = names[start : start + _CHUNK]
            for name, result in zip(chunk, pool.map(read, chunk), strict=True):
                if isinstance(result, Exception):
                    bad.add(name, result)
                else:
                    good[name] = result if hold else None
    return good


def _lazy_table(
    path: str,
    names: list[str],
    shape: tuple[int, int, int],
    size: int | None,
    columns: dict[str, np.ndarray],
    fixed: str | None,
) -> Table:
    """A table that decodes files as they are asked for; `columns` are of what is no image."""

    def read(indices: np.ndarray) -> np.ndarray:
        files = (os.path.join(path, names[index]) for index in indices)
        return np.stack([images.read_pixels(file, size, shape[-1]) for file in files])

    def take(indices: tf.Tensor) -> Rows:
        image = tf.numpy_function(read, [indices], tf.uint8, stateful=False)
        image = tf.ensure_shape(image, [indices.shape[0], *shape])
        if fixed is not None:
            image = tf.map_fn(
                lambda row: pixels.binarize_fixed(row[0][tf.newaxis], fixed, row[1])[0],
                (image, indices),
                fn_output_signature=tf.TensorSpec(shape, tf.uint8),
            )
        others = {key: tf.gather(tf.constant(rows), indices) for key, rows in columns.items()}
        return {"image": image, **others}

    return Table(len(names), take)
