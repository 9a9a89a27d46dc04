"""The order of examples, how it is shared, and where it may be entered."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfgen import data
from tfgen.data import draws, source


def take(dataset, count):
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def assert_same(batches, others):
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])


def joined(batches, count):
    return [
        {key: np.concatenate([b[key] for b in batches[i : i + count]]) for key in batches[0]}
        for i in range(0, len(batches), count)
    ]


SETS = {
    "table": {"name": "digits", "image_range": "binary"},
    "table_fixed": {"name": "digits", "image_range": "binary", "binarization": "fixed"},
    "stacked": {"name": "stacked_digits", "image_range": "binary"},
    "mixture": {"name": "ring8", "needs": ("point",)},
    "stream": {"name": "digits", "image_range": "binary"},
    "stream_fixed": {"name": "digits", "image_range": "binary", "binarization": "fixed"},
}


@pytest.fixture(params=SETS)
def loaded(request, data_dir, monkeypatch):
    if request.param.startswith("stream"):
        monkeypatch.setattr(source, "MEMORY_LIMIT_BYTES", 0)
    return data.load(**SETS[request.param], data_dir=data_dir)


def test_start_step_continues_the_unbroken_stream(loaded):
    # A global batch of 400: of digits an epoch has 3 steps, and 197 examples are left over.
    unbroken = take(loaded.train(200, seed=3, replicas=2), 16)
    for start in (1, 5):  # inside the first epoch, inside the second
        resumed = take(loaded.train(200, seed=3, replicas=2, start_step=start), 16 - 2 * start)
        assert_same(resumed, unbroken[2 * start :])


def test_replicas_and_workers_share_the_global_batch(loaded):
    whole = take(loaded.train(240, seed=3), 7)  # 5 steps an epoch: crosses a border
    assert_same(joined(take(loaded.train(120, seed=3, replicas=2), 14), 2), whole)
    parts = [
        take(loaded.train(60, seed=3, replicas=2, worker=worker, workers=2), 14)
        for worker in (0, 1)
    ]
    interleaved = [b for i in range(0, 14, 2) for part in parts for b in part[i : i + 2]]
    assert_same(joined(interleaved, 4), whole)


def test_seed_changes_the_stream_and_nothing_else_does(loaded):
    one, again, other = (take(loaded.train(50, seed=seed), 2) for seed in (1, 1, 2))
    assert_same(one, again)
    key = "image" if "image" in one[0] else "point"
    assert not np.array_equal(one[0][key], other[0][key])
    assert not np.array_equal(one[0][key], one[1][key])


def test_seeds_beyond_32_bits_differ(digits):
    one, other = (take(digits.train(50, seed=seed), 1)[0] for seed in (1, 1 + 2**32))
    assert not np.array_equal(one["image"], other["image"])


@pytest.mark.parametrize("limit", [source.MEMORY_LIMIT_BYTES, 0])
def test_an_epoch_is_a_permutation(toy_dir, limit, monkeypatch):
    monkeypatch.setattr(source, "MEMORY_LIMIT_BYTES", limit)
    toy = data.load("toy_numbers", data_dir=toy_dir, image_range="uint8")
    assert toy.spec.train_size == 118
    batches = take(toy.train(59, seed=0), 6)
    # The example's number is in the second byte; training draws from split 0 alone.
    assert all((batch["image"][:, 0, 0, 0] == 0).all() for batch in batches)
    epochs = [
        np.concatenate([b["image"][:, 0, 0, 1] for b in batches[i : i + 2]]) for i in (0, 2, 4)
    ]
    for epoch in epochs:
        assert len(set(epoch)) == 118
        assert set(epoch) == set(epochs[0])
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])
    # Spread: neighbours are kept no more than by chance, which is 1 of 117.
    assert np.mean(np.diff(epochs[0].astype(int)) == 1) < 0.1


def test_remainder_is_dropped_and_differs_between_epochs(digits):
    batches = take(digits.train(1000, seed=0), 4)  # 397 of 1,397 left over in each epoch
    seen = [{image.tobytes() for image in batch["image"]} for batch in batches]
    distinct = {
        i.tobytes() for batch in digits.batches("train", 500) for i in batch["image"].numpy()
    }
    assert len(distinct) > 1390  # so bytes do for identity
    assert all(len(s) > 990 for s in seen)
    # Over four epochs 1 - 0.284^4 = 99.3% of the examples have been used.
    assert len(set.union(*seen)) > 0.98 * len(distinct)


@pytest.mark.parametrize("size", [1, 2, 3, 64, 500])
def test_permutations(size):
    """300 epochs: each a permutation, all different, each example as often anywhere."""
    index = tf.range(size, dtype=tf.int64)
    found = tf.function(
        lambda epochs: tf.map_fn(lambda e: draws.permuted(5, e, index, size), epochs),
        autograph=False,
    )(tf.range(300, dtype=tf.int64)).numpy()
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(index, [300, 1]))
    if size < 10:
        return
    # TensorFlow's own index_shuffle repeats itself after 256.
    assert len({order.tobytes() for order in found}) == 300
    bins, degrees = 8, 7
    expected = 300 * np.bincount(np.arange(size) * bins // size) / size
    places = range(0, size, max(1, size // 32))
    counts = [np.bincount(found[:, place] * bins // size, minlength=bins) for place in places]
    scores = [((count - expected) ** 2 / expected).sum() for count in counts]
    # The mean of at least 32 chi-squared variables, 4 standard errors.
    assert abs(np.mean(scores) - degrees) < 4 * np.sqrt(2 * degrees / len(scores))
    steps = np.diff(found, axis=1) % size  # nor do neighbours keep a distance
    assert abs(np.mean(steps == 1) * (size - 1) - 1) < 4 / np.sqrt(steps.size / size)


def test_streams_are_endless_with_static_shapes(loaded):
    stream = loaded.train(16, seed=0)
    assert stream.cardinality() in (tf.data.INFINITE_CARDINALITY, tf.data.UNKNOWN_CARDINALITY)
    for key, spec in stream.element_spec.items():
        assert spec.shape == (16, *loaded.spec.shapes[key])
        assert spec.dtype.name == loaded.spec.dtypes[key]


def test_batches_are_each_example_once_in_fixed_order(loaded):
    size = loaded.spec.validation_size
    batches = take(loaded.batches("validation", 64), 1000)
    assert [len(batch["label"]) for batch in batches[:-1]] == [64] * (size // 64)
    assert len(batches[-1]["label"]) == size % 64
    # Neither the size of batches nor a limit changes an example, nor its noise.
    one = take(loaded.batches("validation", size), 2)
    assert_same(joined(batches, len(batches)), one)
    few = take(loaded.batches("validation", 30, limit=70), 10)
    assert [len(batch["label"]) for batch in few] == [30, 30, 10]
    assert_same(joined(few, 3), [{key: value[:70] for key, value in one[0].items()}])


def test_table_and_stream_hold_the_same(data_dir, monkeypatch):
    for binarization in ("dynamic", "fixed"):
        arguments = {"data_dir": data_dir, "image_range": "binary", "binarization": binarization}
        table = take(data.load("digits", **arguments).batches("test", 128), 9)
        with monkeypatch.context() as patch:
            patch.setattr(source, "MEMORY_LIMIT_BYTES", 0)
            assert_same(take(data.load("digits", **arguments).batches("test", 128), 9), table)


def test_steps_per_epoch(digits):
    assert digits.steps_per_epoch(100) == 13
    assert digits.steps_per_epoch(1397) == 1
    message = (
        "^A global batch of 1398 does not fit the 1397 training examples of data set 'digits'; "
        "give a batch size from 1 to 1397.$"
    )
    with pytest.raises(data.DataError, match=message):
        digits.steps_per_epoch(1398)
    with pytest.raises(data.DataError, match=message):
        digits.train(699, seed=0, replicas=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "^batch_size must be at least 1; got 0.$"),
        ({"start_step": -1}, "^start_step must be at least 0; got -1.$"),
        ({"worker": 2, "workers": 2}, r"^worker must be in \[0, workers=2\); got 2.$"),
    ],
)
def test_impossible_plans(digits, arguments, message):
    with pytest.raises(data.DataError, match=message):
        digits.train(**{"batch_size": 4, "seed": 0} | arguments)


def test_autotuning_is_off(loaded):
    for dataset in (loaded.train(8, seed=0), loaded.batches("test", 8)):
        assert dataset.options().autotune.enabled is False
        assert dataset.options().deterministic is True
