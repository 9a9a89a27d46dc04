"""Random numbers that belong to example positions.

Philox, a counter-based generator, computes its k-th block of four 32-bit words directly from
(key, k). Here position p of a stream owns the blocks [p * blocks, (p + 1) * blocks), so the numbers
of an example depend on (key, position) alone: not on the batch size, on the replica or worker that
draws them, or on where a stream was started. A whole batch is still one kernel call.
"""

import hashlib
import math

import tensorflow as tf

_BLOCK = 4  # 32-bit words in a Philox block
_PHILOX = 1  # tf.random.Algorithm.PHILOX


def stream_key(seed: int, stream: str) -> int:
    """A 64-bit key for the random stream called `stream` of this seed."""
    return int.from_bytes(hashlib.sha256(f"{stream}/{seed}".encode()).digest()[:8], "little")


def words(key: int, position: tf.Tensor, count: tf.Tensor | int, size: int) -> tf.Tensor:
    """Uniform 32-bit words for the positions position..position+count-1.

    Args:
        key: from `stream_key`.
        position: int64 scalar, the first position.
        count: number of consecutive positions.
        size: words wanted for each position.

    Returns:
        uint32 [count, size].
    """
    blocks = math.ceil(size / _BLOCK)
    counter = tf.stack(
        [tf.cast(position, tf.uint64) * tf.constant(blocks, tf.uint64), tf.constant(0, tf.uint64)]
    )
    drawn = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[count, blocks * _BLOCK],
        key=tf.constant([key], tf.uint64),
        counter=counter,
        alg=_PHILOX,
        dtype=tf.uint32,
    )
    return drawn[:, :size]


def integers(word: tf.Tensor, limit: int) -> tf.Tensor:
    """Uniform words -> int64 integers in [0, limit), by floor(word * limit / 2**32)."""
    return tf.bitwise.right_shift(tf.cast(word, tf.int64) * limit, tf.constant(32, tf.int64))


def permuted(key: int, number: tf.Tensor, index: tf.Tensor, size: int) -> tf.Tensor:
    """Where the permutation called `number` of this key sends `index`; computed, not stored.

    RandomIndexShuffle uses no more than the low 8 bits of each of its three seed words when `size`
    is below 2**16, so that `tf.random.experimental.index_shuffle`, which sets two of them, has
    256 permutations for seeds (s, 0), (s, 1), ... Here two shuffles in a row take six hashed words:
    2**48 permutations. Eight rounds, for with the default four neighbours stay correlated.

    Args:
        key: from `stream_key`.
        number: int64 scalar, e.g. an epoch.
        index: int64 [B] in [0, size).
        size: length of the permutation.

    Returns:
        int64 [B] in [0, size).
    """
    seeds = tf.reshape(words(key, number, 1, 6), [2, 3])
    last = tf.constant(size - 1, tf.int64)
    for seed in tf.unstack(seeds):
        index = tf.raw_ops.RandomIndexShuffle(index=index, seed=seed, max_index=last, rounds=8)
    return index


def normals(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Two uniform words [...] -> two standard normals, float32 [..., 2] (Box-Muller).

    In float64, as vectorised float32 functions round by their place in the vector, and a draw may
    not depend on the batch that it is in.
    """
    u, v = ((tf.cast(word, tf.float64) + 1.0) * 2.0**-32 for word in (first, second))  # (0, 1]
    radius, angle = tf.sqrt(-2.0 * tf.math.log(u)), 2.0 * math.pi * v
    return tf.cast(tf.stack([radius * tf.cos(angle), radius * tf.sin(angle)], axis=-1), tf.float32)


def bernoulli(grey: tf.Tensor, key: int, position: tf.Tensor) -> tf.Tensor:
    """Draws ink with probability grey / 255.

    Sixteen random bits a pixel: the probability used is grey * 257 / 65536, within 1.6e-5 of
    grey / 255, and 0 and 255 are certain.

    Args:
        grey: uint8 [B, ...] with known inner dimensions; row i is at position + i.
        key: from `stream_key`.
        position: int64 scalar.

    Returns:
        bool [B, ...].
    """
    pixels = math.prod(grey.shape[1:])
    count = tf.shape(grey)[0] if grey.shape[0] is None else grey.shape[0]
    drawn = words(key, position, count, math.ceil(pixels / 2))  # [B, ceil(pixels / 2)]
    halves = tf.reshape(tf.bitcast(drawn, tf.uint16), [count, -1])[:, :pixels]
    halves = tf.reshape(halves, tf.shape(grey))
    threshold = tf.cast(grey, tf.uint16) * tf.constant(257, tf.uint16)
    return tf.logical_or(halves < threshold, tf.equal(grey, 255))
