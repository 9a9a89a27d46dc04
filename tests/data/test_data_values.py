"""Pixels, binarisation, synthetic sets, splits: what is in a batch."""

import itertools
import json
import multiprocessing
import os
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import tensorflow as tf
from sklearn.datasets import load_digits

from tests.data.streams import whole
from tfgen import data
from tfgen.data import draws, pixels, synthetic, tfds_sets


def test_digits_are_scikit_learns_split_once(digits):
    spec = digits.spec
    assert (spec.train_size, spec.validation_size, spec.test_size) == (1397, 100, 300)
    assert spec.image_shape == (8, 8, 1)
    assert spec.num_classes == 10
    given, labels = load_digits(return_X_y=True)
    expected = np.round(given * 255 / 16).astype(np.uint8)
    splits = [whole(digits, split) for split in ("train", "validation", "test")]
    found = [
        (image.tobytes(), int(label))
        for batch in splits
        for image, label in zip(batch["image"], batch["label"], strict=True)
    ]
    # As multisets: the splits are disjoint and their union is complete.
    assert sorted(found) == sorted(
        (image.tobytes(), int(label)) for image, label in zip(expected, labels, strict=True)
    )


def test_image_ranges(data_dir, digits):
    stored = whole(digits, "test")["image"]
    assert stored.dtype == np.uint8
    assert (stored.min(), stored.max()) == (0, 255)
    unit = whole(data.load("digits", data_dir=data_dir), "test")
    assert unit["image"].dtype == np.float32
    assert unit["label"].dtype == np.int32
    np.testing.assert_array_equal(unit["image"], stored.astype(np.float32) / np.float32(255))
    assert (unit["image"].min(), unit["image"].max()) == (0.0, 1.0)
    symmetric = whole(data.load("digits", data_dir=data_dir, image_range="symmetric"), "test")
    np.testing.assert_allclose(symmetric["image"], 2 * unit["image"] - 1, atol=1e-6)
    assert (symmetric["image"].min(), symmetric["image"].max()) == (-1.0, 1.0)
    threshold = data.load(
        "digits", data_dir=data_dir, image_range="binary", binarization="threshold"
    )
    np.testing.assert_array_equal(whole(threshold, "test")["image"], unit["image"] > 0.5)


@pytest.mark.parametrize("binarization", ["dynamic", "fixed"])
def test_bernoulli_draws(data_dir, digits, binarization):
    grey = whole(digits, "train")["image"] / 255.0
    binary = data.load("digits", data_dir=data_dir, image_range="binary", binarization=binarization)
    drawn = whole(binary, "train")["image"]
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert (drawn[grey == 0] == 0).all()
    assert (drawn[grey == 1] == 1).all()
    # The mean ink, and the mean ink of each grey level, within 4 standard errors.
    error = np.sqrt((grey * (1 - grey)).sum()) / grey.size
    assert abs(drawn.mean() - grey.mean()) < 4 * error
    for level in np.unique(grey)[1:-1]:
        chosen = drawn[grey == level]
        assert abs(chosen.mean() - level) < 4 * np.sqrt(level * (1 - level) / chosen.size)
    # Neighbouring pixels' noise is uncorrelated: residuals along rows.
    residual = drawn - grey
    products = (residual[:, :, 1:] * residual[:, :, :-1]).ravel()
    assert abs(products.mean()) < 4 * products.std() / np.sqrt(products.size)


def test_dynamic_is_fresh_and_fixed_is_not(data_dir):
    dynamic, fixed = (
        data.load("digits", data_dir=data_dir, image_range="binary", binarization=b)
        for b in ("dynamic", "fixed")
    )
    one, again, other = (whole(dynamic, "test", seed=seed)["image"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    one, other = (whole(fixed, "test", seed=seed)["image"] for seed in (0, 1))
    np.testing.assert_array_equal(one, other)
    # In training: "fixed" shows the same 1,397 pictures in each epoch, "dynamic" new ones.
    for loaded, same in ((fixed, True), (dynamic, False)):
        first, second = itertools.islice(loaded.train(1397, seed=0).as_numpy_iterator(), 2)
        epochs = [sorted(image.tobytes() for image in b["image"]) for b in (first, second)]
        assert (epochs[0] == epochs[1]) is same


def test_loads_seed_is_the_default_of_batches(data_dir):
    arguments = {"data_dir": data_dir, "image_range": "binary"}
    loaded = data.load("digits", seed=5, **arguments)
    given = data.load("digits", **arguments)
    np.testing.assert_array_equal(
        whole(loaded, "test")["image"], whole(given, "test", seed=5)["image"]
    )


def test_bernoulli_of_every_grey_level():
    grey = tf.tile(tf.range(256)[tf.newaxis, :, tf.newaxis, tf.newaxis], [4000, 1, 1, 1])
    drawn = draws.bernoulli(tf.cast(grey, tf.uint8), 17, tf.constant(3, tf.int64)).numpy()
    mean, p = drawn.mean(axis=0).ravel(), np.arange(256) / 255
    assert mean[0] == 0.0
    assert mean[255] == 1.0
    scores = (mean - p)[1:-1] / np.sqrt(p * (1 - p) / 4000)[1:-1]
    assert np.abs(scores).max() < 4.5  # the largest of 254
    assert 0.8 < scores.std() < 1.2


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_are_certain(level):
    grey = tf.fill([1000, 1001], tf.constant(level, tf.uint8))
    drawn = draws.bernoulli(grey, 17, tf.constant(0, tf.int64)).numpy()
    assert (drawn == (level == 255)).all()  # a chance of 1 in 65,536 would show 15 times


def test_words_belong_to_positions():
    at = lambda position, count, size: draws.words(  # noqa: E731
        9, tf.constant(position, tf.int64), count, size
    ).numpy()
    everything = at(0, 12, 5)
    np.testing.assert_array_equal(at(7, 4, 5), everything[7:11])
    assert len(np.unique(everything)) == everything.size
    # Far positions are reached without wrapping into near ones.
    assert not np.array_equal(at(2**40, 12, 5), everything)


def test_normals():
    word = draws.words(1, tf.constant(0, tf.int64), 100_000, 2)
    drawn = draws.normals(word[:, 0], word[:, 1]).numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), 0.0, atol=4 / np.sqrt(1e5))
    # Covariance I: the standard error of a variance is sqrt(2 / n).
    np.testing.assert_allclose(np.cov(drawn.T), np.eye(2), atol=4 * np.sqrt(2 / 1e5))
    assert 3.5 < np.abs(drawn).max() < 6


@pytest.mark.parametrize(
    ("name", "modes", "extent", "sigma"), [("ring8", 8, 2.0, 0.02), ("grid25", 25, 4.0, 0.05)]
)
def test_mixtures(name, modes, extent, sigma):
    loaded = data.load(name, needs=("point",))
    spec = loaded.spec
    assert spec.shapes == {"point": (2,), "label": ()}
    assert (spec.train_size, spec.validation_size, spec.test_size) == (100_000, 10_000, 10_000)
    batch = whole(loaded, "test")
    assert batch["point"].dtype == np.float32
    centres = synthetic.centres(name)
    assert centres.shape == (modes, 2)
    np.testing.assert_allclose(np.abs(centres).max(), extent, rtol=1e-6)
    residual = batch["point"] - centres[batch["label"]]
    np.testing.assert_allclose(residual.std(axis=0), sigma, rtol=4 / np.sqrt(2 * 10_000))
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=4 * sigma / 100)
    counts, expected = np.bincount(batch["label"], minlength=modes), 10_000 / modes
    assert np.abs(counts - expected).max() < 4.5 * np.sqrt(expected)
    assert synthetic.deviation(name) == sigma
    # Fixed test points, other ones for validation, and always new ones for training.
    np.testing.assert_array_equal(whole(loaded, "test", seed=9)["point"], batch["point"])
    assert not np.array_equal(whole(loaded, "validation")["point"], batch["point"])
    first, second = itertools.islice(loaded.train(100_000, seed=0).as_numpy_iterator(), 2)
    assert len({p.tobytes() for p in np.concatenate([first["point"], second["point"]])}) > 199_000


def test_stacked_digits(data_dir, digits):
    loaded = data.load("stacked_digits", data_dir=data_dir, image_range="uint8")
    assert loaded.spec.image_shape == (8, 8, 3)
    assert loaded.spec.num_classes == 1000
    for split in ("train", "test"):
        single = whole(digits, split)
        known = {
            image.tobytes(): int(label)
            for image, label in zip(single["image"], single["label"], strict=True)
        }
        batch = next(loaded.batches(split, 500, limit=500).as_numpy_iterator())
        for image, label in zip(batch["image"], batch["label"], strict=True):
            # Every channel is a digit of the same split, and the label reads left to right.
            red, green, blue = (known[image[..., c].tobytes()] for c in range(3))
            assert label == 100 * red + 10 * green + blue
    # Nearly all of the 1,000 modes appear among 100,000; each channel shows all digits.
    labels = next(loaded.train(10_000, seed=0).as_numpy_iterator())["label"]
    assert len(np.unique(labels)) > 990


def test_placed_digits(data_dir, digits):
    loaded = data.load("placed_digits", data_dir=data_dir, image_range="uint8")
    assert loaded.spec.image_shape == (32, 32, 1)
    assert (loaded.spec.train_size, loaded.spec.num_classes) == (1397, 10)

    def found(split, **arguments):
        """The places of a split's digits, which are those of `digits` on black: [N, 2]."""
        batch, single = whole(loaded, split, **arguments), whole(digits, split)
        np.testing.assert_array_equal(batch["label"], single["label"])
        places = []
        for canvas, digit in zip(batch["image"], single["image"], strict=True):
            ink = [np.flatnonzero(canvas.any(axis=(1 - axis, 2))) for axis in (0, 1)]
            own = [np.flatnonzero(digit.any(axis=(1 - axis, 2))) for axis in (0, 1)]
            top, left = (int(a[0] - b[0]) for a, b in zip(ink, own, strict=True))
            np.testing.assert_array_equal(canvas[top : top + 8, left : left + 8], digit)
            assert canvas.sum(dtype=np.int64) == digit.sum(dtype=np.int64)
            places.append((top, left))
        return np.array(places)

    train, test = found("train"), found("test", seed=9)
    # Each of 25 places along both axes: a cell of 5 x 5 blocks of them holds 1/25 of the digits.
    assert (train.min(), train.max()) == (0, 24)
    cells = np.bincount(train[:, 0] // 5 * 5 + train[:, 1] // 5, minlength=25)
    assert scipy.stats.chisquare(cells).pvalue > 1e-3
    np.testing.assert_array_equal(test, found("test", seed=1))
    assert not np.array_equal(test[:100], train[:100])


def test_places_in_training_are_of_seed_and_position(data_dir):
    loaded = data.load("placed_digits", data_dir=data_dir, image_range="uint8")
    take = lambda count, **arguments: np.concatenate([  # noqa: E731
        batch["image"] for batch in
        itertools.islice(loaded.train(seed=3, **arguments).as_numpy_iterator(), count)
    ])  # fmt: skip
    whole_stream = take(6, batch_size=20)
    np.testing.assert_array_equal(take(3, batch_size=20, start_step=3), whole_stream[60:])
    np.testing.assert_array_equal(take(12, batch_size=10), whole_stream)
    # Two epochs of the same digits: hardly one of 1,380 lies where it lay (1 of 625 by chance).
    first, second = take(138, batch_size=20).reshape(2, 1380, -1)
    again = {image.tobytes() for image in first} & {image.tobytes() for image in second}
    assert len(again) < 15


def test_layered_digits(data_dir, digits):
    needs = ("image", "attributes", "mask")
    loaded = data.load("layered_digits", data_dir=data_dir, image_range="uint8", needs=needs)
    spec = loaded.spec
    assert spec.shapes == {
        "image": (16, 16, 1), "label": (), "attributes": (11,), "mask": (16, 16, 1)
    }  # fmt: skip
    batch, single = whole(loaded, "test", seed=9), whole(digits, "test")
    np.testing.assert_array_equal(batch["label"], single["label"])
    np.testing.assert_array_equal(batch["attributes"][:, :10], np.eye(10)[single["label"]])
    brightness = batch["attributes"][:, 10].astype(np.float64)
    assert scipy.stats.kstest(brightness, "uniform").pvalue > 1e-3
    turns = []
    for image, mask, digit, w in zip(
        batch["image"][..., 0], batch["mask"][..., 0], single["image"][..., 0] / 255.0,
        brightness, strict=True,
    ):  # fmt: skip
        top, left = np.argwhere(mask).min(0) - np.argwhere(digit > 0.5).min(0)
        ink = np.zeros((16, 16))
        ink[top : top + 8, left : left + 8] = digit
        np.testing.assert_array_equal(mask, ink > 0.5)
        # The stripes between the ink: a wave of two periods, found by least squares over its turn.
        seen = (image / 255.0 - ink * (0.6 + 0.4 * w))[ink < 1] / (1 - ink[ink < 1])
        if len(turns) < 100:
            turn, height, left_over = fit_stripes(seen, np.argwhere(ink < 1), 1 - ink[ink < 1])
            # Pixels are rounded by 0.5 / 255; least squares makes no largest error least.
            assert left_over < 0.75 / 255
            assert height == pytest.approx(0.2, abs=0.002)
            turns.append(turn)
        np.testing.assert_array_equal(image[ink == 1], np.round(255 * (0.6 + 0.4 * w)))
    assert scipy.stats.kstest(turns, "uniform").pvalue > 1e-3
    other = whole(loaded, "test", seed=1)
    for key, value in batch.items():
        np.testing.assert_array_equal(value, other[key])


def fit_stripes(seen, places, weights):
    """Turn in [0, 1) and height of the wave nearest to what is seen, and its largest error.

    Errors are of pixels as they are in the image, hence weighted.
    """
    v, u = places.T / 16
    target = (seen - 0.3) * weights

    def of(turn):
        along = 4 * np.pi * (u * np.cos(np.pi * turn) + v * np.sin(np.pi * turn))
        wave = np.stack([np.cos(along), np.sin(along)], 1) * weights[:, None]
        amplitudes = np.linalg.lstsq(wave, target, rcond=None)[0]
        return np.abs(wave @ amplitudes - target).max(), np.hypot(*amplitudes)

    largest = lambda turn: of(turn)[0]  # noqa: E731
    start = min(np.linspace(0, 1, 200, endpoint=False), key=largest)
    bounds = (start - 0.01, start + 0.01)
    turn = scipy.optimize.minimize_scalar(largest, bounds=bounds, method="bounded").x
    error, height = of(turn)
    return turn % 1, height, error


def test_layers_in_training_are_of_seed_and_position(data_dir):
    needs = ("image", "attributes", "mask")
    loaded = data.load("layered_digits", data_dir=data_dir, image_range="uint8", needs=needs)

    def take(count, **arguments):
        stream = loaded.train(seed=3, **arguments).as_numpy_iterator()
        batches = list(itertools.islice(stream, count))
        return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}

    unbroken = take(6, batch_size=20)
    for key, value in take(3, batch_size=20, start_step=3).items():
        np.testing.assert_array_equal(value, unbroken[key][60:])
    for key, value in take(12, batch_size=10).items():
        np.testing.assert_array_equal(value, unbroken[key])
    assert len({float(w) for w in take(138, batch_size=20)["attributes"][:, 10]}) > 2700


def test_images_too_large_for_their_canvas(data_dir):
    with pytest.raises(data.DataError, match=r"placed must be 32x32 at most.*Received: 33x33"):
        data.load("placed_digits", data_dir=data_dir, image_size=33)
    assert data.load("placed_digits", data_dir=data_dir, image_size=32).spec.image_shape[0] == 32


def test_toy_tfds_splits_and_features(toy_dir):
    toy = data.load(
        "toy_numbers", data_dir=toy_dir, image_range="uint8", needs=("image", "attributes")
    )
    spec = toy.spec
    # No validation split: the last 2% of train, rounded down.
    assert (spec.train_size, spec.validation_size, spec.test_size) == (118, 2, 9)
    assert spec.shapes == {"image": (6, 4, 3), "label": (), "attributes": (2,)}
    assert spec.dtypes == {"image": "uint8", "label": "int32", "attributes": "float32"}
    batches = {split: whole(toy, split) for split in ("train", "validation", "test")}
    numbers = {split: batch["image"][:, 0, 0, 1].tolist() for split, batch in batches.items()}
    assert sorted(numbers["train"] + numbers["validation"]) == list(range(120))
    assert sorted(numbers["test"]) == list(range(9))
    assert (batches["test"]["image"][:, 0, 0, 0] == 1).all()
    number = np.array(numbers["train"])
    # Sorted by name: Bald, Smiling.
    expected = np.stack([number % 3 == 0, number % 2 == 0], axis=1)
    np.testing.assert_array_equal(batches["train"]["attributes"], expected)
    np.testing.assert_array_equal(batches["train"]["label"], number % 5)


@pytest.mark.parametrize(
    ("name", "sizes", "expected"),
    [
        (
            "mnist",
            {"train": 60_000, "test": 10_000},
            ("train[:59600]", "train[59600:60000]", "test"),
        ),
        ("other", {"train": 1000, "test": 5}, ("train[:980]", "train[980:1000]", "test")),
        ("other", {"train": 9, "validation": 2, "test": 5}, ("train[:9]", "validation", "test")),
        ("other", {"train": 1000}, ("train[:960]", "train[960:980]", "train[980:1000]")),
    ],
)
def test_tfds_splits(name, sizes, expected):
    infos = {split: SimpleNamespace(num_examples=size) for split, size in sizes.items()}
    builder = SimpleNamespace(name=name, info=SimpleNamespace(splits=infos))
    slices, counts = tfds_sets._splits(name, builder)
    assert tuple(slices[split] for split in ("train", "validation", "test")) == expected
    held_out = {s: n for s, n in sizes.items() if s != "train"}
    assert sum(counts.values()) == sizes["train"] + sum(held_out.values())


def test_omniglot_is_grey_small_and_ink_is_one():
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(105, 105, 3))})
    keys = tfds_sets._keys("omniglot", features, None, omniglot=True, sized=True)
    assert keys["image"].shape == (28, 28, 1)
    drawing = np.full((105, 105, 3), 255, np.uint8)  # paper
    drawing[30:75, 30:75] = 0  # ink: rows 8..20 of 28
    encoded = {"image": features["image"].encode_example(drawing)}
    decode = tfds_sets._decoder(features, keys, None, omniglot=True, fixed=None)
    image = decode(encoded, tf.constant(0, tf.int64))["image"].numpy()
    assert (image[9:19, 9:19] == 255).all()
    assert (image[:7] == 0).all()
    # Area averaging keeps the mean, to the rounding of a pixel.
    np.testing.assert_allclose(image.mean() / 255, (45 / 105) ** 2, atol=1e-3)


def test_only_needed_keys_and_the_label(toy_dir):
    toy = data.load("toy_numbers", data_dir=toy_dir, needs=("attributes",))
    assert set(whole(toy, "test")) == set(toy.spec.shapes) == {"attributes", "label"}


def test_train_only_set_of_mixed_sizes(toy_dir):
    sizes = data.load("toy_sizes", data_dir=toy_dir, image_size=8, image_range="uint8")
    spec = sizes.spec
    assert (spec.train_size, spec.validation_size, spec.test_size) == (48, 1, 1)
    assert spec.image_shape == (8, 8, 3)
    assert spec.num_classes is None
    seen = [
        int(v)
        for s in ("train", "validation", "test")
        for v in whole(sizes, s)["image"][:, 0, 0, 0]
    ]
    assert sorted(seen) == list(range(50))


def test_resize_keeps_the_centre():
    image = np.zeros((40, 20, 1), np.uint8)
    image[10:30] = 255
    np.testing.assert_array_equal(pixels.resize(tf.constant(image), 10, method="area").numpy(), 255)
    for shape in ((7, 5), (5, 7), (100, 33)):
        constant = tf.fill([*shape, 3], tf.constant(77, tf.uint8))
        resized = pixels.resize(constant, 9)
        assert resized.shape == (9, 9, 3)
        np.testing.assert_array_equal(resized.numpy(), 77)
    halves = np.array([[0, 100], [200, 60]], np.uint8).repeat(2, 0).repeat(2, 1)[..., None]
    np.testing.assert_array_equal(
        pixels.resize(tf.constant(halves), 2, method="area")[..., 0].numpy(), [[0, 100], [200, 60]]
    )


def test_digits_resized(data_dir):
    loaded = data.load("digits", data_dir=data_dir, image_size=16)
    batch = whole(loaded, "validation")["image"]
    assert batch.shape == (100, 16, 16, 1)
    assert 0.0 <= batch.min() < batch.max() <= 1.0
    small = whole(data.load("digits", data_dir=data_dir), "validation")["image"]
    # Enlarging keeps an image's mean but for what Lanczos overshoots and the range cuts off.
    np.testing.assert_allclose(batch.mean(), small.mean(), atol=0.02)


def test_spec_json_round_trip(digits, data_dir):
    ring = data.load("ring8", needs=("point",)).spec
    for spec in (digits.spec, ring):
        back = data.DataSpec.from_json(spec.to_json())
        assert back == spec
        assert isinstance(next(iter(back.shapes.values())), tuple)
        json.loads(spec.to_json())
    assert data.DataSpec.from_json(digits.spec.to_json()).image_shape == (8, 8, 1)
    with pytest.raises(
        data.DataError, match=r"^Data set 'ring8' has no key 'image'; it gives point"
    ):
        _ = ring.image_shape


def _prepare(path, barrier, queue):
    from tfgen import data

    barrier.wait()
    queue.put(data.load("digits", data_dir=path).spec.train_size)


def test_two_processes_prepare_digits_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_prepare, args=(os.fspath(tmp_path), barrier, queue))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)  # long on a busy machine
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert [queue.get(timeout=9), queue.get(timeout=9)] == [1397, 1397]
    assert os.listdir(tmp_path / "digits") == ["1.0.0"]  # nothing half-written is left
