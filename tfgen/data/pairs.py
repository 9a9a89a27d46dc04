"""`pairs:PATH`: images in pairs, `source` and `target`, which show the same place for place.

They lie side by side in one image, the source on the left, as in the data sets of pix2pix (Isola
et al. 2017); or, `pairs:PATH_A,PATH_B`, in two folders under the same names.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable

import numpy as np

from tfgen.data import images
from tfgen.data.crops import Sizes, sized
from tfgen.data.files import (
    FOLDERS,
    Arrays,
    Bad,
    Decoded,
    Parts,
    image_names,
    shown,
    split_folders,
    split_names,
    top,
)
from tfgen.data.images import Header, Size
from tfgen.data.source import Key, Source
from tfgen.data.spec import SPLITS, DataError

_SIDES = ("source", "target")


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How pairs lie on disk.

    Attributes:
        names: what the pairs go by.
        file: name -> the file to tell of in messages.
        headers: name -> what source and target say of themselves.
        read: (name, size, channels of each) -> pixels of source and target.
    """

    names: list[str]
    file: Callable[[str], str]
    headers: Callable[[str], tuple[Header, Header]]
    read: Callable[[str, Size, tuple[int, int]], tuple[np.ndarray, np.ndarray]]


def pairs_source(path: str, sizes: Sizes, on_bad_image: str) -> Source:
    """The pairs below a folder or two; all are decoded once, so damage is found at the start.

    A side is grey only if it is in all pairs. Folders train, val (or validation) and test are the
    splits, and one that is missing is taken out of train; without a folder train all are split by a
    hash of their names.

    Args:
        path: one folder, or two with a comma between them.
        sizes: what images are resized to; None if all pairs are of one size.
        on_bad_image: "skip" the pair with a warning, or "fail".

    Raises:
        DataError: also for pairs that are none, naming them.
    """
    called, folders = f"pairs:{path}", path.split(",")
    if len(folders) > 2 or not all(folders):
        raise DataError(
            "pairs: takes one folder of images side by side, or two folders with a comma between "
            f"them. Received: {called}"
        )
    bad = Bad(path, on_bad_image)
    layout = (_side_by_side if len(folders) == 1 else _in_two_folders)(called, *folders)
    headers = {}
    for name in layout.names:
        try:
            headers[name] = layout.headers(name)
        except (images.BadImageError, OSError) as error:
            bad.add(layout.file(name), error)
    if sizes.train is None:
        _check_sizes(called, headers)
    channels = _channels(headers, 0), _channels(headers, 1)
    height, width = next(((h.height, h.width) for h, _ in headers.values()), (1, 1))

    def keys(split: str) -> dict[str, Key]:
        size = sizes.split(split)
        return {
            side: sized(Key((height, width, count), "uint8"), size)
            for side, count in zip(_SIDES, channels, strict=True)
        }

    def read(name: str, split: str) -> Arrays:
        found = layout.read(name, sizes.split(split), channels)
        return dict(zip(_SIDES, found, strict=True))

    def divide(good: list[str]) -> Parts:
        if any(top(name) == "train" and os.sep in name for name in layout.names):
            return split_folders(good, FOLDERS, called)
        if len(good) < len(SPLITS):
            raise DataError(
                f"{called} holds {len(good)} readable pairs of {len(layout.names)}; training, "
                f"validation and test need at least {len(SPLITS)}."
            )
        return split_names(good)

    decoded = Decoded(list(headers), keys, read, divide, bad, layout.file, len(layout.names))
    return Source(keys("train"), None, decoded.sizes, lambda split: decoded.open(split, {}))


def _side_by_side(called: str, path: str) -> _Layout:
    """The source is the left half of each image, the target the right one."""

    def headers(name: str) -> tuple[Header, Header]:
        whole = images.read_header(file(name))
        if whole.width % 2:
            raise DataError(
                f"{file(name)!r} is {whole.width}x{whole.height}; the width must be even, as the "
                "left half is the source and the right half the target."
            )
        half = dataclasses.replace(whole, width=whole.width // 2)
        return half, half

    def file(name: str) -> str:
        return os.path.join(path, name)

    def read(name: str, size: Size, channels: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return images.read_halves(file(name), size, channels[0])

    return _Layout(image_names(path, called), file, headers, read)


def _in_two_folders(called: str, *folders: str) -> _Layout:
    """Sources in the first folder, targets in the second, by the name without its suffix."""
    by_stem = [_by_stem(path) for path in folders]
    alone = [
        os.path.join(path, own[stem])
        for path, own, other in zip(folders, by_stem, by_stem[::-1], strict=True)
        for stem in sorted(own.keys() - other.keys())
    ]
    if alone:
        raise DataError(
            f"{called} has images without a partner of the same name in the other folder: "
            f"{shown(alone)}."
        )

    def files(stem: str) -> tuple[str, str]:
        first, second = (
            os.path.join(path, own[stem]) for path, own in zip(folders, by_stem, strict=True)
        )
        return first, second

    def headers(stem: str) -> tuple[Header, Header]:
        first, second = (images.read_header(file) for file in files(stem))
        if (first.height, first.width) != (second.height, second.width):
            raise DataError(
                f"The images of a pair must be of one size; {files(stem)[0]!r} is {first.width}x"
                f"{first.height}, {files(stem)[1]!r} {second.width}x{second.height}."
            )
        return first, second

    def read(stem: str, size: Size, channels: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        first, second = (
            images.read_pixels(file, size, count)
            for file, count in zip(files(stem), channels, strict=True)
        )
        return first, second

    return _Layout(sorted(by_stem[0]), lambda stem: " and ".join(files(stem)), headers, read)


def _by_stem(path: str) -> dict[str, str]:
    """Name without suffix -> name, of the images below a folder."""
    found: dict[str, str] = {}
    for name in image_names(path, path):
        stem = os.path.splitext(name)[0]
        if stem in found:
            raise DataError(
                f"Images of pairs go by their names without suffix; {path!r} holds both "
                f"{found[stem]!r} and {name!r}."
            )
        found[stem] = name
    return found


def _channels(headers: dict[str, tuple[Header, Header]], side: int) -> int:
    return 1 if all(pair[side].grey for pair in headers.values()) else 3


def _check_sizes(called: str, headers: dict[str, tuple[Header, Header]]) -> None:
    """Raises a DataError unless all pairs are of one size."""
    shapes = {name: (first.height, first.width) for name, (first, _) in headers.items()}
    if len(set(shapes.values())) > 1:
        usual = Counter(shapes.values()).most_common(1)[0][0]
        odd = next(name for name, shape in shapes.items() if shape != usual)
        example = next(name for name, shape in shapes.items() if shape == usual)
        raise DataError(
            f"Pairs in {called} differ in size: {odd!r} is {shapes[odd][1]}x{shapes[odd][0]}, "
            f"{example!r} {usual[1]}x{usual[0]}; give one size with --image_size or --resize."
        )
