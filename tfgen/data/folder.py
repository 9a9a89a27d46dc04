"""`folder:PATH`: every image below a folder, with its sub-folders as classes if it has any.

Where they are called train, val (or validation) and test, train and perhaps some others, they are
the splits, and the sub-folders of each are the classes.

`PATH/attributes.csv`, where there is one, gives their attributes: see `attributes`.
"""

import os
from collections.abc import Callable

import numpy as np

from tfgen.data import images
from tfgen.data.attributes import read_attributes
from tfgen.data.crops import Sizes, sized
from tfgen.data.files import (
    FOLDERS,
    SUFFIXES,
    Arrays,
    Bad,
    Decoded,
    Parts,
    image_names,
    image_shape,
    read_headers,
    split_folders,
    split_names,
    top,
)
from tfgen.data.pipeline import Split
from tfgen.data.source import Key, Source
from tfgen.data.spec import SPLITS, DataError

__all__ = ["SUFFIXES", "folder_source", "split_names"]


def folder_source(
    path: str, needs: tuple[str, ...], sizes: Sizes, on_bad_image: str, fixed: bool
) -> Source:
    """The images below `path` as a source; all are decoded once, so damage is found at the start.

    Grey only if all images are grey. `label` where there are at least two sub-folders with images
    and no image lies beside them; classes are the sub-folders' names, sorted. `attributes` where
    they are needed and there is a file of them. The split of a file that lies in no folder of a
    split depends on its path below `path` alone, but for the few moved so that none is empty.

    Args:
        path: the folder.
        needs: the keys that will be used; attributes are read for these alone.
        sizes: what images are resized to; None if all images are of one size.
        on_bad_image: "skip" with a warning, or "fail".
        fixed: whether images are binarised once and for ever.
    """
    called = f"folder:{path}"
    bad = Bad(path, on_bad_image)
    names = image_names(path, called)
    attributes = read_attributes(path, names) if "attributes" in needs else None
    splits = _are_splits(names)
    below = lambda name: name.partition(os.sep)[2] if splits else name  # noqa: E731
    classes = _classes([below(name) for name in names])

    def divide(good: list[str]) -> Parts:
        if splits:
            return split_folders(good, FOLDERS, called)
        if len(good) < len(SPLITS):
            raise DataError(
                f"{called} holds {len(good)} readable images of {len(names)}; "
                "training, validation and test need at least 3."
            )
        return split_names(good)

    def columns(chosen: list[str]) -> Arrays:
        found = {}
        if classes:
            found["label"] = np.array([classes[top(below(name))] for name in chosen], np.int32)
        if attributes is not None:
            found["attributes"] = np.stack([attributes[name] for name in chosen])
        return found

    return named_source(path, called, names, sizes, divide, columns, bad, len(classes), fixed)


def named_source(
    path: str,
    called: str,
    names: list[str],
    sizes: Sizes,
    divide: Callable[[list[str]], Parts],
    columns: Callable[[list[str]], Arrays],
    bad: Bad,
    num_classes: int = 0,
    fixed: bool = False,
) -> Source:
    """Some images below `path` as a source.

    Args:
        path: the folder.
        called: what to call it in messages.
        names: relative paths of the images.
        sizes: what images are resized to; None if all images are of one size.
        divide: the good names -> those of each split; raises a DataError for too few.
        columns: names -> what is no image, [size, ...].
        bad: who is told of bad images.
        num_classes: of labels; 0 without.
        fixed: whether images are binarised once and for ever.
    """
    headers = read_headers(path, names, bad)
    shape = image_shape(path, headers, sizes.train, bad, called)
    of_split = {split: sized(Key(shape, "uint8"), sizes.split(split)) for split in SPLITS}

    def read(name: str, split: str) -> Arrays:
        file, size = os.path.join(path, name), sizes.split(split)
        return {"image": images.read_pixels(file, size, shape[-1])}

    decoded = Decoded(
        list(headers), lambda split: {"image": of_split[split]}, read, divide, bad,
        lambda name: os.path.join(path, name), len(names),
    )  # fmt: skip

    def open_split(split: str) -> Split:
        return decoded.open(split, columns(decoded.parts[split]), fixed)

    others = {
        key: Key(value.shape[1:], value.dtype.name) for key, value in columns(names[:1]).items()
    }
    keys = {"image": of_split["train"], **others}
    return Source(keys, num_classes or None, decoded.sizes, open_split)


def _are_splits(names: list[str]) -> bool:
    """Whether every image lies in train, val, validation or test, and some in train.

    A class may be called so as well, but hardly all of them.
    """
    tops = {top(name) if os.sep in name else "" for name in names}
    return "train" in tops and tops <= set(FOLDERS)


def _classes(names: list[str]) -> dict[str, int]:
    """Class number of each sub-folder; {} if there are no classes."""
    tops = sorted({top(name) for name in names})
    loose = any(os.sep not in name for name in names)
    return {} if loose or len(tops) < 2 else {name: number for number, name in enumerate(tops)}
