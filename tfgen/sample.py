"""Draws from a trained run: `python -m tfgen.sample --run_dir=runs/iwae_digits [--num=64]`.

Needs the run directory alone, not the data. Writes to its samples/, as a PNG and as an `.npz` whose
only array is called "image":

    random-seed0            random samples: float32 [num, H, W, C] in [0, 1]
    <picture>-seed0         whatever pictures the model makes of a batch of images, e.g.
                            reconstructions: float32 [rows, columns, H, W, C] in [0, 1]
    <animation>-seed0       likewise whatever moves within a model, e.g. the strokes of a drawing:
                            float32 [frames, rows, columns, H, W, C], shown as a GIF

The batch is batch.npz of the run directory, which holds validation examples, or --images.

A model that translates images takes --images=FOLDER as what is to be translated: all of its
pictures, of any size, each to <out>/<translation>-seed0/ under its own name, as a PNG of its size.
"""

import dataclasses
import math
import pathlib
import sys
import zipfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfgen import commands, hparams, run, seeds, translations
from tfgen.errors import UserError

if TYPE_CHECKING:
    from tfgen.data import DataSpec
    from tfgen.training.model import GenerativeModel

CHUNK = 256  # Samples drawn at once; another number would give other samples.
_MAX_IMAGES = 64  # A batch for pictures has at most so many.
_IMAGES = {"image", "source", "target", "a", "b"}  # Batch keys of images.
_MAX_TILES = 256  # A PNG of random samples shows at most so many.


@dataclasses.dataclass(frozen=True)
class Options(commands.RunOptions):
    """Options of the command."""

    num: int = 64  # How many random samples.
    seed: int = 0  # Source of all noise; the same seed and num give the same samples.
    # Images for the pictures, instead of the run's batch.npz: a folder of image files, or an .npz
    # with an array for each batch key, e.g. image [N, H, W, C], as uint8 0..255 or in the range
    # the system was trained in. The first 64 count; of a folder to be translated all do.
    images: str | None = None
    # What a folder of images is put through, of a model that translates both ways: translate or
    # translate_back; default: translate.
    translation: str | None = None
    out: str | None = None  # Where the files go; default: samples/ of the run.

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ValueError(f"--num must be more than 0. Received: --num={self.num}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"--seed must be from 0 to 2^31 - 1. Received: --seed={self.seed}")
        super().__post_init__()


def main(argv: Sequence[str]) -> int:
    """Draws; returns the exit status."""
    options = hparams.parse_options(argv, Options)
    if options.help:
        print(hparams.options_help(Options, __doc__))
        return 0
    run_dir = run.RunDir(options.run_dir)
    run_dir.require()
    given = pathlib.Path(options.images).expanduser() if options.images else None
    if given and not given.exists():
        raise UserError(f"images not found: --images={given}")
    if given and given.is_file() and given.suffix != ".npz":
        raise UserError(
            f"--images is a folder of images, or an .npz: give the folder that holds the image. "
            f"Received: --images={given}"
        )
    out = pathlib.Path(options.out).expanduser() if options.out else run_dir.samples
    with run.writing(out):
        out.mkdir(parents=True, exist_ok=True)
    _, hp, spec, model = commands.load_run(run_dir)

    if given and given.is_dir() and model.translations():
        translations.save(model, given, options.translation, options.seed, out)
        return 0
    if options.translation:
        raise UserError(
            "--translation is for a model that translates, and a folder of images. Received: "
            f"--translation={options.translation} --images={options.images}"
        )
    if given:
        batch = read_images(given, spec, hp, model.needs, options.seed)
    elif run_dir.batch.is_file():
        batch = run.read_arrays(run_dir.batch)
    else:
        batch = {}
        print(f"no {run_dir.batch} and no --images: random samples only")
    save_random(model, options.num, options.seed, out, spec.image_range)
    if batch:
        _save_pictures(model, batch, options.seed, out)
    return 0


def draw(model: "GenerativeModel", num: int, seed: int) -> Iterator[np.ndarray]:
    """Random samples of a model in chunks of 256, the last one short.

    The first chunk is drawn with the seed itself: for num <= 256 it is `model.sample(num, seed)`.

    Args:
        model: what is drawn from.
        num: samples of all chunks together.
        seed: from 0 to 2^31 - 1.

    Yields:
        float32 [<= 256, ...], as `model.sample` returns them.
    """
    for index, start in enumerate(range(0, num, CHUNK)):
        samples = model.sample(min(CHUNK, num - start), seeds.of_part(seed, index))
        yield np.asarray(samples, np.float32)


def save_random(
    model: "GenerativeModel", num: int, seed: int, out: pathlib.Path, image_range: str
) -> None:
    """Writes random-seed<n>.npz chunk by chunk, and a grid of the first samples if they are images.

    The array is called "image", of values in [0, 1] whatever range the model works in, or "point".
    """
    from rich import progress

    from tfgen.metrics import images

    path = out / f"random-seed{seed}.npz"
    chunks = progress.track(
        draw(model, num, seed),
        total=math.ceil(num / CHUNK),
        description="samples",
        transient=True,
        disable=num <= CHUNK,
    )
    first = np.empty(0)
    with run.atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
        name = "point" if model.needs == ("point",) else "image"
        with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
            for chunk in chunks:
                if name == "image":
                    chunk = images.to_unit(chunk, image_range).numpy()
                if not len(first):
                    first = chunk
                    shape = (num, *chunk.shape[1:])
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(entry, header)
                entry.write(chunk.astype("<f4").tobytes())
    print(path)
    if first.ndim == 4:
        _save_grid(path.with_suffix(".png"), _square(first[:_MAX_TILES]))


def _save_pictures(
    model: "GenerativeModel", batch: dict[str, np.ndarray], seed: int, out: pathlib.Path
) -> None:
    """Writes the pictures and animations of a batch; a picture that would be empty is left out."""
    import tensorflow as tf

    from tfgen.metrics import pictures

    tensors = model.as_batch({name: tf.constant(array) for name, array in batch.items()})
    for name, frames in model.animations(tensors, seed).items():
        path = out / f"{name}-seed{seed}.npz"
        run.write_arrays(path, {"image": np.asarray(frames, np.float32)})
        print(path)
        pictures.animate([pictures.tile(f) for f in frames], path.with_suffix(".gif"))
        print(path.with_suffix(".gif"))
    for name, grid in model.pictures(tensors, seed).items():
        path = out / f"{name}-seed{seed}.npz"
        if 0 in grid.shape:
            print(f"{name}: too few images for it")
            continue
        run.write_arrays(path, {"image": np.asarray(grid, np.float32)})
        print(path)
        _save_grid(path.with_suffix(".png"), grid)


def _save_grid(path: pathlib.Path, grid: np.ndarray) -> None:
    from tfgen.metrics import pictures

    pictures.save_png(path, pictures.tile(grid))
    print(path)


def _square(images: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] as a grid [rows, columns, H, W, C] filled up with white."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    white = np.ones((rows * columns - len(images), *images.shape[1:]), images.dtype)
    return np.concatenate([images, white]).reshape(rows, columns, *images.shape[1:])


def read_images(
    path: pathlib.Path, spec: "DataSpec", hp: hparams.HParams, needs: Sequence[str], seed: int
) -> dict[str, np.ndarray]:
    """A batch from the user's images, in the range that the system was trained in.

    Args:
        path: a folder of image files, or an .npz.
        spec: of the data that the system was trained on.
        hp: the run's hyperparameters: image files are resized and pixels binarised as in training.
        needs: keys of the batch.
        seed: of the binarisation.

    Returns:
        The first 64 examples: arrays [<= 64, ...] by batch key.

    Raises:
        UserError: if something cannot be read, or is of another shape or range.
    """
    if path.is_dir():
        batch = {"image": _read_folder(path, spec.image_shape, hp.image_size)}
    else:
        batch = run.read_arrays(path)
    for key in needs:
        if key not in batch:
            raise UserError(
                f"the system needs the batch keys {', '.join(needs)}; --images={path} has "
                f"{', '.join(batch) or 'none'}"
            )
        array, shape = batch[key], batch[key].shape
        if array.dtype.kind not in "biuf" or shape[1:] != spec.shapes[key] or not array.size:
            want = ", ".join(["N", *map(str, spec.shapes[key])])
            raise UserError(
                f"{key!r} in --images={path} must be numbers [{want}]. "
                f"Received: {array.dtype} {list(shape)}"
            )
        if key not in _IMAGES and not np.isfinite(array.astype(float)).all():
            raise UserError(f"{key!r} in --images={path} must be finite. Received: NaN or infinity")
    batch = {key: batch[key][:_MAX_IMAGES] for key in needs}
    for key in _IMAGES & batch.keys():
        batch[key] = _in_range(key, batch[key], path, spec, hp, seed)
    return {key: array.astype(spec.dtypes[key]) for key, array in batch.items()}


def _read_folder(
    folder: pathlib.Path, shape: tuple[int, int, int], image_size: int | None
) -> np.ndarray:
    """The first image files by name: uint8 [N, H, W, C]."""
    from tfgen.data import folder as folders
    from tfgen.data import images

    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in folders.SUFFIXES)
    if not files:
        raise UserError(f"--images={folder} holds no images ({' '.join(folders.SUFFIXES)})")
    rows = []
    for file in files[:_MAX_IMAGES]:
        try:
            rows.append(images.read_pixels(str(file), image_size, shape[-1]))
        except (images.BadImageError, OSError) as error:
            raise UserError(f"cannot read {file}: {error}") from error
        if rows[-1].shape != shape:
            raise UserError(
                f"{file} must be {shape[1]}x{shape[0]}, as the images that the system was trained "
                f"on. Received: {rows[-1].shape[1]}x{rows[-1].shape[0]}"
            )
    return np.stack(rows)


def _in_range(
    key: str,
    image: np.ndarray,
    path: pathlib.Path,
    spec: "DataSpec",
    hp: hparams.HParams,
    seed: int,
) -> np.ndarray:
    """Brings uint8 images into the system's range; checks that others lie in it."""
    from tfgen.data import draws, pixels

    if image.dtype == np.uint8:
        # Draws that are fixed for the examples of a data set are fixed by the seed here.
        how = "threshold" if hp.binarization == "threshold" else "dynamic"
        noise = draws.stream_key(seed, "binarize/images")
        return pixels.Pixels(spec.image_range, how)(image, noise, 0).numpy()
    low, high = (-1, 1) if spec.image_range == "symmetric" else (0, 1)
    fits = spec.image_range != "uint8" and np.all((image >= low) & (image <= high))
    if not fits or (spec.image_range == "binary" and not np.isin(image, (0, 1)).all()):
        raise UserError(
            f"{key!r} in --images={path} must be uint8 or in the system's range "
            f"{commands.RANGES[spec.image_range]}. "
            f"Received: {image.dtype} from {image.min():g} to {image.max():g}"
        )
    return image


if __name__ == "__main__":
    sys.exit(commands.execute(main, sys.argv))
