"""What every kind of data set hands to the pipeline: its keys, its sizes, its splits."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from tfgen.data.pipeline import Rows, Split, Table
from tfgen.data.pixels import binarize_fixed

MEMORY_LIMIT_BYTES = 2 * 2**30  # a decoded split up to this size is held in memory
_CHUNK = 4096  # examples binarised at once


@dataclasses.dataclass(frozen=True)
class Key:
    """Shape and dtype of one raw example under one batch key."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of one example."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def is_image(self) -> bool:
        """Whether it holds pixels: uint8 [H, W, C]."""
        return self.dtype == "uint8" and len(self.shape) == 3


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set before ranges and batches.

    Attributes:
        keys: the raw keys, images as uint8.
        num_classes: labels are 0..num_classes-1; None without labels.
        sizes: examples in "train", "validation" and "test".
        open: reads one split.
        apart: whether the images of an example have nothing to do with each other.
        own_sizes: `sizes` of keys that have fewer, whose rows then come again.
    """

    keys: dict[str, Key]
    num_classes: int | None
    sizes: dict[str, int]
    open: Callable[[str], Split]
    apart: bool = False
    own_sizes: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)


def fits_memory(keys: dict[str, Key], size: int) -> bool:
    """Whether `size` decoded examples are within `MEMORY_LIMIT_BYTES`."""
    return size * sum(key.nbytes for key in keys.values()) <= MEMORY_LIMIT_BYTES


def table(
    keys: dict[str, Key], size: int, rows: Iterator[dict[str, np.ndarray]], fixed: str | None
) -> Table:
    """Reads batches of raw rows into one table on the host.

    Args:
        keys: what each row holds.
        size: number of examples that `rows` gives in all.
        rows: dicts of arrays [any, ...].
        fixed: name of the split to binarise its images once and for ever; None to leave them.
    """
    columns = {key: np.empty((size, *k.shape), k.dtype) for key, k in keys.items()}
    filled = 0
    for batch in rows:
        count = len(next(iter(batch.values())))
        for key, column in columns.items():
            column[filled : filled + count] = batch[key]
        filled += count
    if filled != size:
        raise ValueError(f"expected {size} examples; received {filled}")
    with tf.device("CPU:0"):
        if fixed is not None and "image" in columns:
            image = columns["image"]
            for start in range(0, size, _CHUNK):
                part = tf.constant(image[start : start + _CHUNK])
                at = tf.constant(start, tf.int64)
                image[start : start + _CHUNK] = binarize_fixed(part, fixed, at).numpy()
        tensors: Rows = {key: tf.constant(column) for key, column in columns.items()}
    return Table.of(tensors)
