"""From a split to batches: the order of examples, how workers and replicas share it, seeking.

A training stream is a function of its `Plan` alone. In epoch e the examples stand in a permutation
given by (seed, e); step s takes the next `global_batch` of them, cut into slices of `batch_size`:
worker 0's replicas first, then worker 1's. What is left over at the end of an epoch is dropped.
Every draw is a function of (seed, position in the stream), so a stream can start at any step and
can be cut in any way, and still holds the same examples with the same noise, to the bit.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import tensorflow as tf

from tfgen.data import draws
from tfgen.data.spec import DataError

Rows = dict[str, tf.Tensor]  # raw examples: image uint8 [B, H, W, C], label int32 [B], ...
Finish = Callable[[Rows, tf.Tensor], Rows]  # (rows, int64 position of the first) -> batch

_PARALLEL_CALLS = 2
_PREFETCH = 4
_SHUFFLE_BUFFER = 16_384  # encoded examples, for splits that are streamed from files


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which examples of an endless training stream one worker emits.

    Attributes:
        size: examples in the split.
        batch_size: examples in one emitted batch, that is for one replica.
        seed: order and noise are functions of it.
        start_step: the global step to start at.
        replicas: replicas of this worker; each step emits one batch for each.
        worker: index of this worker.
        workers: number of workers.
    """

    size: int
    batch_size: int
    seed: int
    start_step: int = 0
    replicas: int = 1
    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        for field, least in (("batch_size", 1), ("start_step", 0), ("replicas", 1), ("workers", 1)):
            if getattr(self, field) < least:
                raise DataError(f"{field} must be at least {least}; got {getattr(self, field)}.")
        if not 0 <= self.worker < self.workers:
            raise DataError(f"worker must be in [0, workers={self.workers}); got {self.worker}.")

    @property
    def global_batch(self) -> int:
        """Examples that one step consumes over all workers and replicas."""
        return self.batch_size * self.replicas * self.workers

    @property
    def steps_per_epoch(self) -> int:
        """Whole steps in an epoch."""
        return self.size // self.global_batch

    def locate(self, element: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Where the worker's element-th batch (counted from step 0) begins, int64 scalars.

        Returns:
            epoch: its epoch.
            offset: position of its first example in the epoch's permutation.
            position: position of its first example in the whole stream.
        """
        step = element // self.replicas
        part = self.worker * self.replicas + element % self.replicas
        offset = step % self.steps_per_epoch * self.global_batch + part * self.batch_size
        return (
            step // self.steps_per_epoch,
            offset,
            step * self.global_batch + part * self.batch_size,
        )


class Split(Protocol):
    """One split of a data set."""

    @property
    def size(self) -> int:
        """Number of examples, of an epoch."""

    def train(self, plan: Plan, finish: Finish) -> tf.data.Dataset:
        """The endless stream of `plan`; `finish` gets positions in that stream."""

    def ordered(self, batch_size: int, size: int, finish: Finish) -> tf.data.Dataset:
        """The first `size` examples once, in fixed order; `finish` gets their indices."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A split that gives any example by its index: held in memory, or decoded when asked for.

    Attributes:
        size: number of examples.
        take: int64 indices [B] -> raw rows.
    """

    size: int
    take: Callable[[tf.Tensor], Rows]

    @classmethod
    def of(cls, columns: Rows) -> "Table":
        """The table that holds these columns [size, ...]."""
        size = int(next(iter(columns.values())).shape[0])

        def take(indices: tf.Tensor) -> Rows:
            return {key: tf.gather(column, indices) for key, column in columns.items()}

        return cls(size, take)

    def train(self, plan: Plan, finish: Finish) -> tf.data.Dataset:
        """See `Split`; a random permutation of each epoch, computed and not stored."""
        key = draws.stream_key(plan.seed, "order")

        def batch(element: tf.Tensor) -> Rows:
            epoch, offset, position = plan.locate(element)
            ranks = offset + tf.range(plan.batch_size, dtype=tf.int64)
            indices = draws.permuted(key, epoch, ranks, self.size)
            return finish(self.take(indices), position)

        return _endless(plan, batch)

    def ordered(self, batch_size: int, size: int, finish: Finish) -> tf.data.Dataset:
        """See `Split`."""
        return _finite(batch_size, size, lambda at, n: finish(self.take(at + _range(n)), at))


@dataclasses.dataclass(frozen=True)
class Generated:
    """A split made of draws: example at position p = f(seed, p). An epoch is nominal.

    Attributes:
        size: nominal number of examples.
        draw: (key, position, count) -> raw rows of position..position+count-1.
        name: the split, which names the fixed draws of `ordered`.
    """

    size: int
    draw: Callable[[int, tf.Tensor, tf.Tensor | int], Rows]
    name: str

    def train(self, plan: Plan, finish: Finish) -> tf.data.Dataset:
        """See `Split`; never repeats an example."""
        key = draws.stream_key(plan.seed, "examples")

        def batch(element: tf.Tensor) -> Rows:
            _, _, position = plan.locate(element)
            return finish(self.draw(key, position, plan.batch_size), position)

        return _endless(plan, batch)

    def ordered(self, batch_size: int, size: int, finish: Finish) -> tf.data.Dataset:
        """See `Split`; the same examples whatever the seed."""
        key = draws.stream_key(0, f"examples/{self.name}")
        return _finite(batch_size, size, lambda at, n: finish(self.draw(key, at, n), at))


@dataclasses.dataclass(frozen=True)
class Stream:
    """A split too large for memory, read from its files in order.

    The order of an epoch is that of the files, mixed by a buffer of `_SHUFFLE_BUFFER` examples
    that is seeded by (seed, epoch). Starting inside an epoch reads over what went before.

    Attributes:
        size: number of examples.
        encoded: the examples in fixed order, not decoded, without batch.
        decode: (encoded example, its index) -> raw row, without batch.
    """

    size: int
    encoded: tf.data.Dataset
    decode: Callable[[Rows, tf.Tensor], Rows]

    def train(self, plan: Plan, finish: Finish) -> tf.data.Dataset:
        """See `Split`."""
        used = plan.steps_per_epoch * plan.global_batch
        first_epoch, first_step = divmod(plan.start_step, plan.steps_per_epoch)
        key = draws.stream_key(plan.seed, "order")

        def epoch_rows(epoch: tf.Tensor) -> tf.data.Dataset:
            skipped = tf.where(epoch == first_epoch, first_step * plan.global_batch, 0)
            order = tf.bitcast(draws.words(key, epoch, 1, 2), tf.int64)[0]
            examples = self.encoded.enumerate().shuffle(
                _SHUFFLE_BUFFER, seed=order, reshuffle_each_iteration=False
            )
            examples = examples.take(used).skip(tf.cast(skipped, tf.int64))
            share = plan.batch_size * plan.replicas
            return examples.batch(share).shard(plan.workers, plan.worker).unbatch()

        batches = (
            tf.data.Dataset.counter(first_epoch)
            .flat_map(epoch_rows)
            .map(self._decoded, num_parallel_calls=_PARALLEL_CALLS, deterministic=True)
            .batch(plan.batch_size, drop_remainder=True)
            .enumerate(start=plan.start_step * plan.replicas)
            .map(lambda element, rows: finish(rows, plan.locate(element)[2]))
        )
        return tuned(batches)

    def ordered(self, batch_size: int, size: int, finish: Finish) -> tf.data.Dataset:
        """See `Split`."""
        batches = self.encoded.enumerate().take(size)
        batches = batches.map(self._decoded, num_parallel_calls=_PARALLEL_CALLS, deterministic=True)
        batches = batches.batch(batch_size).enumerate()
        return tuned(batches.map(lambda element, rows: finish(rows, element * batch_size)))

    def _decoded(self, index: tf.Tensor, example: Rows) -> Rows:
        return self.decode(example, index)


def tuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Fixed prefetch, no autotuning (its thread delays dropping an iterator), fixed order."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    return dataset.prefetch(_PREFETCH).with_options(options)


def count_of(rows: Rows) -> tf.Tensor | int:
    """The number of rows; an integer where it is known."""
    first = next(iter(rows.values()))
    return tf.shape(first)[0] if first.shape[0] is None else first.shape[0]


def _range(count: tf.Tensor | int) -> tf.Tensor:
    return tf.range(tf.cast(count, tf.int64), dtype=tf.int64)


def _endless(plan: Plan, batch: Callable[[tf.Tensor], Rows]) -> tf.data.Dataset:
    elements = tf.data.Dataset.counter(plan.start_step * plan.replicas)
    return tuned(elements.map(batch, num_parallel_calls=_PARALLEL_CALLS, deterministic=True))


def _finite(
    batch_size: int, size: int, batch: Callable[[tf.Tensor, tf.Tensor | int], Rows]
) -> tf.data.Dataset:
    """Batches of 0..size-1, the last one short; of static size where none is short."""

    def at(position: tf.Tensor) -> Rows:
        if size % batch_size == 0:
            return batch(position, batch_size)
        return batch(
            position, tf.cast(tf.minimum(position + batch_size, size) - position, tf.int32)
        )

    starts = tf.data.Dataset.range(0, size, batch_size)
    return tuned(starts.map(at, num_parallel_calls=_PARALLEL_CALLS, deterministic=True))
