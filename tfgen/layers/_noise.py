"""Where the noise of a layer comes from: a function of (seed, calls so far, replica)."""

import random

import keras
import tensorflow as tf


def drawn(seed: int | None) -> int:
    """The seed, or for None one that Python draws: `keras.utils.set_random_seed` fixes which."""
    return random.randrange(2**31) if seed is None else seed


def next_key(seed: int, calls: keras.Variable) -> tf.Tensor:
    """The key of this call's draws, by Philox, int64 [2]; counts the call."""
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(calls.value, tf.int64)])
    replica = tf.distribute.get_replica_context()
    if replica:
        index = tf.cast(replica.replica_id_in_sync_group, tf.int64)
        key = tf.random.experimental.stateless_fold_in(key, index, alg="philox")
    calls.assign_add(1)
    return key
