"""`attributes.csv` in a folder of images: a row of numbers for each of them.

For example, with images in sub-folders or not:

    image,Smiling,Eyeglasses
    anna/001.png,1,0
    anna/002.png,0,0
"""

import csv
import math
import os
from collections.abc import Iterator

import numpy as np

from tfgen.data.spec import DataError

FILE = "attributes.csv"
_SHOWN = 5  # offenders that a message names


def read_attributes(path: str, images: list[str]) -> dict[str, np.ndarray] | None:
    """Attributes float32 [A] of each image below a folder; None without a file of them.

    Args:
        path: the folder.
        images: paths of its images below it.

    Raises:
        DataError: if the file is no table, or images and rows do not match; names the first five.
    """
    where = os.path.join(path, FILE)
    if not os.path.isfile(where):
        return None
    try:
        with open(where, encoding="utf-8", newline="") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where!r} cannot be read: {error}.") from error
    names = header[1:]
    if not names or len(set(names)) < len(names):
        raise DataError(
            f"{where!r} must begin with a line of 'image' and the attributes' names, each once; "
            f"got {','.join(header)!r}."
        )
    found: dict[str, np.ndarray] = {}
    wrong = list(_wrong_rows(rows, len(names), images, found))
    named = {row[0] for row in rows}
    slashed = (image.replace(os.sep, "/") for image in images)
    wrong += [f"{image!r} has no row" for image in slashed if image not in named]
    if wrong:
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise DataError(
            f"{where!r} does not match the images beside it: {', '.join(wrong[:_SHOWN])}{more}; "
            f"it needs one row of {len(names)} numbers for each image."
        )
    return found


def _wrong_rows(
    rows: list[list[str]], count: int, images: list[str], found: dict[str, np.ndarray]
) -> Iterator[str]:
    """What is wrong with rows; those that are right go into `found`, by the image's path."""
    paths = {image.replace(os.sep, "/"): image for image in images}
    for name, *values in rows:
        if name not in paths:
            yield f"{name!r} is no image"
        elif paths[name] in found:
            yield f"{name!r} has two rows"
        elif len(values) != count:
            yield f"{name!r} has {len(values)} values"
        elif (bad := next((v for v in values if not _is_number(v)), None)) is not None:
            yield f"{name!r} has {bad!r}, which is no number"
        else:
            found[paths[name]] = np.array(values, np.float32)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
