"""What the tests of data sets read of them."""

import itertools

import numpy as np


def whole(loaded, split, limit=None, **arguments):
    """A split, or the first of it, as one batch of arrays."""
    size = limit or getattr(loaded.spec, f"{split}_size")
    return next(loaded.batches(split, size, limit=limit, **arguments).as_numpy_iterator())


def take(loaded, count, seed=3, **arguments):
    """So many batches of the training stream, joined."""
    stream = loaded.train(seed=seed, **arguments).as_numpy_iterator()
    batches = list(itertools.islice(stream, count))
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def assert_seeks_and_shares(loaded, batch_size, steps, start):
    """The stream from a step on, and cut for two replicas, is the unbroken one."""
    unbroken = take(loaded, steps, batch_size=batch_size)
    resumed = take(loaded, steps - start, batch_size=batch_size, start_step=start)
    shared = take(loaded, 2 * steps, batch_size=batch_size // 2, replicas=2)
    for key, value in unbroken.items():
        np.testing.assert_array_equal(resumed[key], value[start * batch_size :], err_msg=key)
        np.testing.assert_array_equal(shared[key], value, err_msg=key)
