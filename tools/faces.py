"""Makes a folder of faces with attributes.csv, for `vae.attribute`, of two sets of faces.

    python -m tools.faces --set=cmu_faces --source=cmu_faces_60x64.npz --folder=FOLDERS/cmu_faces
    python -m tools.faces --set=faces_keypoints --source=PATH --folder=FOLDERS/faces_keypoints

`cmu_faces` (T. Mitchell, CMU Face Images, UCI Machine Learning Repository): 20 people in each pose
and expression, with and without sunglasses; the attributes are these. SOURCE is an .npz of `image`
uint8 [N, H, W], and for each of them `person`, `sunglasses`, and `pose` and `expression`, indices
into `pose_names` and `expression_names`.

`faces_keypoints` (L. Wolf et al. Face Recognition in Unconstrained Videos with Matched Background
Similarity. CVPR 2011): video frames in colour with 68 landmarks, from which the attributes are
computed, see `geometry`. SOURCE is a folder with `faces64.zip`, of images 00000.jpg and so on, and
`keypoints68.npz`, of `keypoints` [N, 68, 2] in pixels (x, y) and `person` [N].

No person is in two of the splits, which are the folders train, val and test.
"""

import csv
import dataclasses
import io
import pathlib
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from PIL import Image

from tfgen import commands, hparams
from tfgen.data.attributes import FILE
from tfgen.errors import UserError

_SPLITS = ("train", "train", "train", "train", "train", "train", "val", "test")  # Of 8 people.
_LARGEST = 1 << 20  # Bytes of one image in the archive.
Table = dict[str, np.ndarray]  # Name of an attribute -> float [N].


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the command."""

    set: Literal["cmu_faces", "faces_keypoints"] = "cmu_faces"  # Which faces.
    source: str = ""  # Where they lie: a file for cmu_faces, a folder for faces_keypoints.
    folder: str = ""  # What is written, and must not be there yet.
    help: bool = False  # Print all flags, and stop.


def main(argv: Sequence[str]) -> int:
    """Writes the folder."""
    options = hparams.parse_options(argv, Options)
    if options.help:
        print(hparams.options_help(Options, __doc__))
        return 0
    for name in ("source", "folder"):
        if not getattr(options, name):
            raise UserError(f"--{name} is missing: say a path")
    folder = pathlib.Path(options.folder)
    if folder.exists():
        raise UserError(f"--folder must not exist yet. Received: {options.folder}")
    made = {"cmu_faces": cmu_faces, "faces_keypoints": faces_keypoints}[options.set]
    images, person, attributes = made(pathlib.Path(options.source))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        whole = pathlib.Path(scratch) / folder.name
        write(whole, images, person, attributes)
        whole.rename(folder)
    print(f"{folder}: {len(person)} images, attributes {', '.join(attributes)}")
    return 0


def write(
    folder: pathlib.Path,
    images: Iterator[tuple[str, bytes]],
    person: np.ndarray,
    attributes: Mapping[str, np.ndarray],
) -> None:
    """Writes files of images, each in the folder of its person's split, and their table.

    Args:
        folder: is made.
        images: suffix and content of the files.
        person: int [N].
        attributes: float [N] each.
    """
    for split in _SPLITS:
        (folder / split).mkdir(parents=True, exist_ok=True)
    people = np.unique(person, return_inverse=True)[1]
    with open(folder / FILE, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", *attributes])
        for index, (suffix, content) in enumerate(images):
            name = f"{_SPLITS[people[index] % len(_SPLITS)]}/{index:05d}{suffix}"
            (folder / name).write_bytes(content)
            table.writerow([name, *(f"{column[index]:g}" for column in attributes.values())])


def cmu_faces(source: pathlib.Path) -> tuple[Iterator[tuple[str, bytes]], np.ndarray, Table]:
    """Images as PNG, scaled to the whole range of grey, who is on them, and their attributes."""
    keys = ("image", "person", "sunglasses", "pose", "pose_names", "expression", "expression_names")
    arrays = _arrays(source, keys)
    image = arrays["image"]
    for key in ("person", "sunglasses", "pose", "expression"):
        _require(source, key, arrays[key], (len(image),))
    _require(source, "image", image, (len(image), *image.shape[1:3]))
    grey = np.round(image * (255.0 / image.max())).astype(np.uint8)
    attributes = {"sunglasses": arrays["sunglasses"].astype(float)}
    for key in ("pose", "expression"):
        names = arrays[f"{key}_names"]
        for index in range(1, len(names)):  # The first is the usual.
            attributes[str(names[index])] = (arrays[key] == index).astype(float)
    return ((".png", _png(pixels)) for pixels in grey), arrays["person"], attributes


def faces_keypoints(source: pathlib.Path) -> tuple[Iterator[tuple[str, bytes]], np.ndarray, Table]:
    """Images as they are in the archive, who is on them, and their `geometry`."""
    path = source / "keypoints68.npz"
    arrays = _arrays(path, ("keypoints", "person"))
    count = len(arrays["keypoints"])
    _require(path, "keypoints", arrays["keypoints"], (count, 68, 2))
    _require(path, "person", arrays["person"], (count,))
    images = _archived(source / "faces64.zip", [f"{index:05d}.jpg" for index in range(count)])
    return images, arrays["person"], geometry(arrays["keypoints"].astype(float))


def geometry(points: np.ndarray) -> Table:
    """What 68 landmarks [N, 68, 2] tell of faces, as ratios of distances and angles: [N] each.

    "mouth_open" is the gap between the inner lips and "smile" the mouth's width; "eyes_open" the
    mean height of the eyes for their width, "brows_up" the distance from brows to eyes; "yaw" is
    how much nearer the nose's tip is to one end of the jaw than to the other, from -1 to 1, and
    "roll" the slope of the line through both eyes, in radians. Widths and heights but the eyes'
    are for the distance of the eyes' outer corners. Values beyond the 5th and the 95th percentile,
    many of which are landmarks gone astray, are these.
    """

    def distance(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(points[:, a] - points[:, b], axis=1)

    def centre(start: int, end: int) -> np.ndarray:
        return points[:, start:end].mean(1)

    size = distance(36, 45)
    eyes = [
        (distance(a + 1, a + 5) + distance(a + 2, a + 4)) / (2 * distance(a, a + 3))
        for a in (36, 42)
    ]
    brows = np.linalg.norm(centre(17, 27) - centre(36, 48), axis=1)
    left, right = distance(30, 0), distance(30, 16)
    line = points[:, 45] - points[:, 36]
    found = {
        "mouth_open": distance(62, 66) / size,
        "smile": distance(48, 54) / size,
        "eyes_open": (eyes[0] + eyes[1]) / 2,
        "brows_up": brows / size,
        "yaw": (left - right) / (left + right),
        "roll": np.arctan2(line[:, 1], line[:, 0]),
    }
    return {key: np.clip(v, *np.percentile(v, [5, 95])) for key, v in found.items()}


def _arrays(path: pathlib.Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in keys if key not in file]
            if missing:
                raise UserError(f"{str(path)!r} has no {', '.join(missing)}; it needs {keys}")
            return {key: file[key] for key in keys}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{str(path)!r} cannot be read as .npz: {error}") from error


def _require(path: pathlib.Path, key: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape or not len(array):
        raise UserError(
            f"{key} in {str(path)!r} must be of shape {shape}, and of one image at least. "
            f"Received: shape {array.shape}"
        )


def _archived(path: pathlib.Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Suffix and content of members of an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                size = archive.getinfo(name).file_size
                if size > _LARGEST:
                    raise UserError(
                        f"{name} in {str(path)!r} must be of {_LARGEST} bytes at most. "
                        f"Received: {size}"
                    )
                yield pathlib.PurePath(name).suffix, archive.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{str(path)!r} cannot be read: {error}") from error


def _png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


if __name__ == "__main__":
    sys.exit(commands.execute(main, sys.argv))
