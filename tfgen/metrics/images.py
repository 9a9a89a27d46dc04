"""Real and generated examples for a comparison, and their images as 8-bit grey levels.

What is compared are images as a file would hold them: values are clipped and rounded to 0..255 in
real and generated images alike, whatever range a system works in.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfgen.data import Data
from tfgen.errors import UserError
from tfgen.metrics.measure import Settings

BATCH = 500
_RANGES = {"unit": (0.0, 1.0), "binary": (0.0, 1.0), "symmetric": (-1.0, 1.0), "uint8": (0.0, 255)}


def to_bytes(images: np.ndarray | tf.Tensor, image_range: str) -> np.ndarray:
    """Images in a range of `DataSpec.image_range`, of any shape, to uint8 0..255.

    For example -1.0, 0.0, 1.0 in "symmetric" are 0, 128, 255.
    """
    low, high = _RANGES[image_range]
    unit = (np.asarray(images, np.float32) - low) / (high - low)
    return np.round(255.0 * np.clip(unit, 0.0, 1.0)).astype(np.uint8)


def to_unit(images: tf.Tensor, image_range: str) -> tf.Tensor:
    """Images in a range of `DataSpec.image_range`, of any shape, to float32 [0, 1]."""
    low, high = _RANGES[image_range]
    return tf.clip_by_value((tf.cast(images, tf.float32) - low) / (high - low), 0.0, 1.0)


def counts(data: Data, settings: Settings) -> tuple[int, int]:
    """How many real and how many generated examples a comparison takes.

    Raises:
        UserError: if either is below 10.
    """
    size = getattr(data.spec, f"{settings.split}_size")
    fake = min(settings.num_samples, settings.limit or settings.num_samples)
    real = min(size, fake)
    if min(real, fake) < 10:
        raise UserError(
            f"a comparison needs at least 10 {settings.split} examples and 10 generated ones. "
            f"Received: {real} and {fake}; see --num_samples, --limit and --split"
        )
    return real, fake


def real_batches(
    data: Data, settings: Settings, num: int, key: str = "image"
) -> Iterator[dict[str, np.ndarray]]:
    """`num` examples of the split, drawn without replacement where it has more.

    Yields:
        Dicts with `key` (images as uint8 [<= 500, H, W, C], others as they are) and, where the
        data has it, "label" [<= 500].
    """
    size = getattr(data.spec, f"{settings.split}_size")
    taken = np.zeros(size, bool)
    taken[np.random.default_rng(settings.seed).permutation(size)[:num]] = True
    start = 0
    for batch in data.batches(settings.split, BATCH, seed=settings.seed):
        rows = taken[start : start + len(batch[key])]
        start += len(rows)
        arrays = {k: v.numpy()[rows] for k, v in batch.items() if k in (key, "label")}
        if key == "image":
            arrays["image"] = to_bytes(arrays["image"], data.spec.image_range)
        if rows.any():
            yield arrays


def generated(model: Any, data: Data, settings: Settings, num: int) -> Iterator[np.ndarray]:
    """`num` examples by `model.sample(count, seed)`, images in the range of the data.

    Where the data is binary a model gives the probabilities of its pixels, and these are drawn.

    Yields:
        Images uint8 [<= 500, H, W, C] or points float32 [<= 500, 2].

    Raises:
        UserError: if a sample is not finite.
        ValueError: if the samples are not of the data's shape.
    """
    key = "image" if "image" in data.spec.shapes else "point"
    starts = settings.progress(range(0, num, BATCH), "samples")
    for index, start in enumerate(starts):
        count = min(BATCH, num - start)
        draws = np.random.SeedSequence([settings.seed, index])  # no two chunks of any seeds alike
        samples = np.asarray(model.sample(count, int(draws.generate_state(1)[0] >> 1)), np.float32)
        if samples.shape != (count, *data.spec.shapes[key]):
            raise ValueError(
                f"sample({count}, seed) must give {[count, *data.spec.shapes[key]]} for data "
                f"{data.spec.name!r}. Received: {list(samples.shape)}"
            )
        if not np.isfinite(samples).all():
            bad = int((~np.isfinite(samples.reshape(count, -1)).all(axis=1)).sum())
            raise UserError(f"samples must be finite numbers. Received: {bad} of {count} are not")
        if key == "point":
            yield samples
        elif data.spec.image_range == "binary":
            uniform = np.random.default_rng(draws).random(samples.shape, np.float32)
            yield 255 * (uniform < samples).astype(np.uint8)
        else:
            yield to_bytes(samples, data.spec.image_range)
