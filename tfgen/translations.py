"""Puts a folder of a user's images through a model, each in its own size."""

import os
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from tfgen import run, seeds
from tfgen.errors import UserError

if TYPE_CHECKING:
    from tfgen.training.model import GenerativeModel

_BATCH_VALUES = 16 * 256 * 256 * 3  # Of a batch of several images at most.


def save(
    model: "GenerativeModel", folder: pathlib.Path, name: str | None, seed: int, out: pathlib.Path
) -> None:
    """Writes the translation of every image below a folder to <out>/<name>-seed<n>/.

    A file keeps its path below the folder and its size, and becomes a PNG; one that cannot be read
    is named and left out. Neighbours of one size go through the model together, up to 16 images of
    256x256 at once.

    Args:
        model: has `translations()`.
        folder: of image files, with sub-folders or not.
        name: of the translation; None for the model's first.
        seed: from 0 to 2^31 - 1; each batch is translated with noise of its own.
        out: a folder that exists.

    Raises:
        UserError: if there is no such translation, or no image could be read.
    """
    import tensorflow as tf
    from absl import logging
    from rich import progress

    from tfgen.data import files as data_files
    from tfgen.data import images, pixels
    from tfgen.metrics import images as metric_images
    from tfgen.metrics import pictures

    known = model.translations()
    name = name or next(iter(known))
    if name not in known:
        raise UserError(
            f"--translation must be one of {', '.join(known)}. Received: --translation={name}"
        )
    channels = model.signatures()[name][1]["image"].shape[-1]
    translate = tf.function(known[name], reduce_retracing=True)
    to_range = pixels.Pixels("symmetric")
    files = data_files.image_names(os.fspath(folder), f"--images={folder}")
    target = out / f"{name}-seed{seed}"
    names = png_names(files)
    bad = []

    def read(file: str) -> np.ndarray | None:
        path = os.fspath(folder / file)
        try:
            images.read_header(path)
            return images.read_pixels(path, None, channels)
        except (images.BadImageError, OSError) as error:
            logging.warning("Bad image %r: %s; skipped.", path, error)
            bad.append(file)
            return None

    shown = progress.track(files, description=name, transient=True)
    for index, (batch, found) in enumerate(_batches(shown, read)):
        noise = tf.constant(seeds.of_part(seed, index))
        made = metric_images.to_bytes(translate(to_range(found, 0, 0), noise), "symmetric")
        for file, image in zip(batch, made, strict=True):
            path = target / names[file]
            with run.writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            pictures.save_png(path, image)
    if len(bad) == len(files):
        raise UserError(f"none of the {len(bad)} images in --images={folder} can be read")
    print(f"{target}: {len(files) - len(bad)} images" + (f", {len(bad)} skipped" if bad else ""))


def _batches(
    files: Iterable[str], read: Callable[[str], np.ndarray | None]
) -> Iterator[tuple[list[str], np.ndarray]]:
    """The files that can be read, neighbours of one size together: names, uint8 [N, H, W, C]."""
    names: list[str] = []
    found: list[np.ndarray] = []
    for file in files:
        image = read(file)
        if image is None:
            continue
        full = (len(found) + 1) * image.size > _BATCH_VALUES
        if found and (full or image.shape != found[0].shape):
            yield names, np.stack(found)
            names, found = [], []
        names.append(file)
        found.append(image)
    if found:
        yield names, np.stack(found)


def png_names(files: list[str]) -> dict[str, str]:
    """A PNG's path for each file, no two alike.

    a/cat.jpg -> a/cat.png; where that would be another file's as well, such as that of a/cat.gif,
    both keep their whole names: a/cat.jpg.png.
    """
    names = {file: os.path.splitext(file)[0] for file in files}
    while twice := {name for name, count in Counter(names.values()).items() if count > 1}:
        names = {file: file if name in twice else name for file, name in names.items()}
    return {file: f"{name}.png" for file, name in names.items()}
