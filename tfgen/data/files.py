"""Image files below a folder: found, checked, divided into splits, decoded once or when asked for.

What the kinds of data that lie in folders have in common; see `folder`, `pairs` and `unpaired`.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from absl import logging

from tfgen.data import images, pixels
from tfgen.data.pipeline import Rows, Split, Table
from tfgen.data.source import Key, fits_memory, table
from tfgen.data.spec import SPLITS, DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
ON_BAD_IMAGE = ("skip", "fail")
# Folders that are splits, where there is one called train.
FOLDERS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
SHOWN = 5  # offenders that a message names
_HELD_OUT = 0.05  # share of validation, and of test
_THREADS = 4
_CHUNK = 256  # files decoded at once

Arrays = dict[str, np.ndarray]
Parts = dict[str, list[str]]  # the names in each split


class Bad:
    """Says what is wrong with bad files: one warning each and a count, or a DataError."""

    def __init__(self, path: str, on_bad_image: str):
        if on_bad_image not in ON_BAD_IMAGE:
            raise DataError(f"Unknown --on_bad_image {on_bad_image!r}; one of skip, fail.")
        self._path, self._fail, self._count = path, on_bad_image == "fail", 0

    def add(self, file: str, reason: Exception) -> None:
        """One more bad file."""
        what = f"Bad image {file!r}: {reason}"
        if self._fail:
            raise DataError(f"{what}; mend or remove it, or give --on_bad_image=skip.")
        logging.warning("%s; skipped.", what)
        self._count += 1

    def report(self, total: int) -> None:
        """Tells the count of bad files, if there are any."""
        if self._count:
            logging.warning("Skipped %d of %d images in %s.", self._count, total, self._path)


def image_names(path: str, called: str) -> list[str]:
    """Relative paths of all image files below `path`, sorted; hidden ones left out.

    Links to folders are followed, each folder once.

    Args:
        path: the folder.
        called: what to call it in messages.

    Raises:
        DataError: if it is no folder, or empty.
    """
    if not os.path.isdir(path):
        raise DataError(f"{called} is not a folder.")
    found, seen = [], {os.path.realpath(path)}
    for where, folders, files in os.walk(path, followlinks=True):
        shown = sorted(folder for folder in folders if not folder.startswith("."))
        real = {os.path.realpath(os.path.join(where, folder)): folder for folder in shown}
        folders[:] = [folder for path_to, folder in real.items() if path_to not in seen]
        seen |= set(real)
        for file in files:
            if file.lower().endswith(tuple(SUFFIXES)) and not file.startswith("."):
                found.append(os.path.relpath(os.path.join(where, file), path))
    if not found:
        raise DataError(f"{called} holds no images ({' '.join(SUFFIXES)}).")
    return sorted(found)


def top(name: str) -> str:
    """The first folder of a relative path."""
    return name.split(os.sep)[0]


def read_headers(path: str, names: list[str], bad: Bad) -> dict[str, images.Header]:
    """The headers of the good ones among some files below `path`."""
    headers = {}
    for name in names:
        file = os.path.join(path, name)
        try:
            headers[name] = images.read_header(file)
        except (images.BadImageError, OSError) as error:
            bad.add(file, error)
    return headers


def image_shape(
    path: str, headers: dict[str, images.Header], size: images.Size, bad: Bad, called: str
) -> tuple[int, int, int]:
    """The shape of all images; those of an odd size are only complained of if they are readable.

    Grey only if all are. Unreadable ones are taken out of `headers`.
    """
    if size is None and headers:
        (usual, _), *_ = Counter((h.height, h.width) for h in headers.values()).most_common(1)
        odd = {name: h for name, h in headers.items() if (h.height, h.width) != usual}
        example = next(name for name in headers if name not in odd)
        for name, header in odd.items():
            file = os.path.join(path, name)
            try:
                images.read_pixels(file, None, 3)
            except (images.BadImageError, OSError) as error:
                bad.add(file, error)
                del headers[name]
                continue
            raise DataError(
                f"Images in {called} differ in size: {name!r} is {header.width}x"
                f"{header.height}, {example!r} {usual[1]}x{usual[0]}; give one with --image_size."
            )
    else:
        usual = (size, size) if isinstance(size, int) else size or (0, 0)
    return *usual, 1 if all(header.grey for header in headers.values()) else 3


def split_names(names: list[str]) -> Parts:
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


def split_folders(names: list[str], folders: dict[str, str], called: str) -> Parts:
    """Splits names by their first folder; a split without one is taken out of train by a hash.

    Args:
        names: relative paths.
        folders: the split that each folder stands for.
        called: what to call them in messages.

    Raises:
        DataError: if names lie elsewhere, or there are too few.
    """
    stray = [name for name in names if top(name) not in folders or os.sep not in name]
    if stray:
        raise DataError(
            f"{called} has a folder for training, so every image belongs in one of its folders "
            f"{', '.join(folders)}; elsewhere lie {shown(stray)}."
        )
    parts: Parts = {split: [] for split in SPLITS}
    for name in names:
        parts[folders[top(name)]].append(name)
    missing = [split for split in SPLITS[1:] if not parts[split]]
    if missing and len(parts["train"]) >= len(SPLITS):
        hashed = split_names(parts["train"])
        for split in missing:
            parts[split] = hashed[split]
        taken = {name for split in missing for name in hashed[split]}
        parts["train"] = [name for name in parts["train"] if name not in taken]
    elif missing or not parts["train"]:
        raise DataError(
            f"{called} holds {len(parts['train'])} readable images for training; with "
            f"{' and '.join(missing) or 'no split'} taken out of them, they must be at least "
            f"{len(SPLITS) if missing else 1}."
        )
    return parts


def shown(names: list[str]) -> str:
    """The first names, and how many there are besides."""
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more


class Decoded:
    """Image files, each decoded once so that damage is found at the start.

    The pixels are held in memory if they are not too many, and else decoded when asked for.

    Attributes:
        parts: the names of the good ones in each split.
    """

    def __init__(
        self,
        names: list[str],
        keys: Callable[[str], dict[str, Key]],
        read: Callable[[str, str], Arrays],
        divide: Callable[[list[str]], Parts],
        bad: Bad,
        file: Callable[[str], str],
        total: int,
    ):
        """Decodes.

        Args:
            names: the files, or what a row of images goes by.
            keys: split -> image keys of a row; images may be resized otherwise in another split.
            read: (name, split) -> uint8 [H, W, C] for each key.
            divide: names -> splits; raises a DataError for too few.
            bad: who is told of bad ones.
            file: name -> the path to tell.
            total: how many images there were before any was found bad.
        """
        self._keys, self._read = keys, read
        try:
            before = divide(names)
        except DataError:
            # Told once all bad ones are known; until then any split will do.
            before = {"train": names}
        split_of = {name: split for split, part in before.items() for name in part}
        good = self._decode(names, split_of, bad, file)
        bad.report(total)
        self.parts = divide(sorted(good))
        self._held = good
        for split, part in self.parts.items():  # what was bad may move others
            for name in part:
                if split_of[name] != split and good[name] is not None:
                    good[name] = read(name, split)

    def _decode(
        self, names: list[str], split_of: dict[str, str], bad: Bad, file: Callable[[str], str]
    ) -> dict[str, Arrays | None]:
        """The pixels of each good file, or None for each if they are too many to hold."""
        hold = fits_memory(self._keys("train"), len(names))
        good: dict[str, Arrays | None] = {}

        def read(name: str) -> Arrays | Exception:
            try:
                return self._read(name, split_of[name])
            except (images.BadImageError, OSError) as error:
                return error

        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(names), _CHUNK):
                chunk = names[start : start + _CHUNK]
                for name, result in zip(chunk, pool.map(read, chunk), strict=True):
                    if isinstance(result, Exception):
                        bad.add(file(name), result)
                    else:
                        good[name] = result if hold else None
        return good

    @property
    def sizes(self) -> dict[str, int]:
        """Examples in each split."""
        return {split: len(part) for split, part in self.parts.items()}

    def open(self, split: str, columns: Arrays, fixed: bool = False) -> Split:
        """One split.

        Args:
            split: its name.
            columns: what is no image, [size, ...], in the order of `parts`.
            fixed: whether `image` is binarised once and for ever.
        """
        keys, chosen = self._keys(split), self.parts[split]
        held = [row for row in map(self._held.get, chosen) if row is not None]
        name = split if fixed else None
        if len(held) < len(chosen):
            return self._lazy(split, keys, columns, name)
        rows = {key: np.stack([row[key] for row in held]) for key in keys}
        others = {key: Key(value.shape[1:], value.dtype.name) for key, value in columns.items()}
        return table({**keys, **others}, len(chosen), iter([rows | columns]), fixed=name)

    def _lazy(self, split: str, keys: dict[str, Key], columns: Arrays, fixed: str | None) -> Table:
        """A table that decodes files as they are asked for."""
        names = self.parts[split]

        def read(indices: np.ndarray) -> list[np.ndarray]:
            rows = [self._read(names[index], split) for index in indices]
            return [np.stack([row[key] for row in rows]) for key in keys]

        def take(indices: tf.Tensor) -> Rows:
            found = tf.numpy_function(read, [indices], [tf.uint8] * len(keys), stateful=False)
            rows = {
                key: tf.ensure_shape(image, [indices.shape[0], *keys[key].shape])
                for key, image in zip(keys, found, strict=True)
            }
            if fixed is not None:
                rows["image"] = tf.map_fn(
                    lambda row: pixels.binarize_fixed(row[0][tf.newaxis], fixed, row[1])[0],
                    (rows["image"], indices),
                    fn_output_signature=tf.TensorSpec(keys["image"].shape, tf.uint8),
                )
            others = {key: tf.gather(tf.constant(rows), indices) for key, rows in columns.items()}
            return {**rows, **others}

        return Table(len(names), take)
