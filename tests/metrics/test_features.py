"""Feature networks by name: the classifier and its cache, and networks from files."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen import data
from tfgen.errors import UserError
from tfgen.metrics import classifier, features, images
from tfgen.metrics.measure import Settings


@pytest.fixture(scope="module")
def digits(digits_dir: str) -> data.Data:
    return data.load("digits", data_dir=digits_dir, image_range="symmetric")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("cache") / "below"


def _test_images(of: data.Data) -> tuple[np.ndarray, np.ndarray]:
    size = min(of.spec.test_size, 300)
    (batch,) = images.real_batches(of, Settings(), size)
    return batch["image"], batch["label"]


def test_classifier_learns_digits_once(
    digits: data.Data, digits_dir: str, cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "_LEAST_STEPS", 200)
    extractor = features.load("classifier", digits, cache)
    assert extractor.name == "digits_classifier"
    x, labels = _test_images(digits)
    found, logits = extractor(x)
    assert found.shape == (300, 64)
    assert logits is not None
    assert logits.shape == (300, 10)
    assert (logits.argmax(axis=1) == labels).mean() > 0.95

    def no_training(*_: object) -> None:
        raise AssertionError("trained twice")

    monkeypatch.setattr(classifier, "train", no_training)
    same = data.load("digits", data_dir=digits_dir, image_range="uint8")
    again, _ = features.load("classifier", same, cache)(_test_images(same)[0])
    np.testing.assert_allclose(again, found, atol=1e-5)


def test_cache_path_is_of_data_split_size_network_and_seed(
    digits: data.Data, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    spec = digits.spec
    others = [
        dataclasses.replace(spec, name="mnist"),
        dataclasses.replace(spec, train_size=5),
        dataclasses.replace(spec, num_classes=5),
        dataclasses.replace(spec, shapes={"image": (9, 8, 1), "label": ()}),
        dataclasses.replace(spec, image_range="binary"),
    ]
    paths = {classifier.cache_path(s, tmp_path, 0) for s in [spec, *others]}
    paths.add(classifier.cache_path(spec, tmp_path, 1))
    assert len(paths) == 7
    unit = dataclasses.replace(spec, image_range="unit")
    assert classifier.cache_path(unit, tmp_path, 0) in paths
    monkeypatch.setenv(classifier.CACHE_VARIABLE, str(tmp_path / "x"))
    assert classifier.cache_path(spec, None, 0).parent == tmp_path / "x"
    monkeypatch.delenv(classifier.CACHE_VARIABLE)
    assert classifier.cache_path(spec, None, 0).parent == pathlib.Path.home() / ".cache/tfgen"
    assert classifier.short_name("folder:/a/My Cats/") == "my_cats"


def test_damaged_cache_is_one_line(digits: data.Data, tmp_path: pathlib.Path) -> None:
    path = classifier.cache_path(digits.spec, tmp_path, 0)
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match="cannot read the classifier .*; delete it"):
        classifier.load(digits, tmp_path)


def test_data_without_labels_is_told_what_to_use(tmp_path: pathlib.Path) -> None:
    spec = type("Spec", (), {"name": "faces", "shapes": {"image": (8, 8, 3)}, "num_classes": None})
    with pytest.raises(UserError, match="'faces' has none: use --features=random"):
        classifier.train(type("Data", (), {"spec": spec}))


def test_stacked_digits_are_three_channels() -> None:
    image = np.random.default_rng(0).random((2, 4, 5, 3)).astype(np.float32)
    apart = classifier.channels_apart(tf.constant(image)).numpy()
    assert apart.shape == (6, 4, 5, 1)
    np.testing.assert_array_equal(apart[4, :, :, 0], image[1, :, :, 1])
    labels = tf.constant([207, 999], tf.int32)
    np.testing.assert_array_equal(classifier.digits_apart(labels), [2, 0, 7, 9, 9, 9])
    logits = tf.one_hot([2, 0, 7, 9, 9, 9], 10) * 5.0 + 3.0
    joined, modes = classifier.channels_joined(tf.reshape(tf.range(12.0), [6, 2]), logits)
    np.testing.assert_array_equal(joined, np.arange(12.0).reshape(2, 6))
    np.testing.assert_array_equal(tf.argmax(modes, axis=1), [207, 999])
    np.testing.assert_allclose(tf.reduce_sum(tf.exp(modes), axis=1), [1, 1], atol=1e-5)


def test_stacked_classifier(
    digits_dir: str, cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "_LEAST_STEPS", 100)
    monkeypatch.setattr(classifier, "_EPOCHS", 0)
    stacked = data.load("stacked_digits", data_dir=digits_dir)
    extractor = features.load("classifier", stacked, cache)
    assert extractor.name == "stacked_digits_classifier"
    batch = next(images.real_batches(stacked, Settings(), 10_000))
    found, logits = extractor(batch["image"])
    assert found.shape == (500, 192)
    assert logits is not None
    # All three digits right, after 100 steps only.
    assert (logits.argmax(axis=1) == batch["label"]).mean() > 0.7


def test_random_features(digits: data.Data) -> None:
    x, _ = _test_images(digits)
    extractor = features.load("random", digits)
    found, logits = extractor(x)
    assert (extractor.name, logits, found.shape) == ("random", None, (300, 64))
    np.testing.assert_array_equal(features.load("random", digits)(x)[0], found)
    assert np.linalg.matrix_rank(found) > 16


def test_saved_model(digits: data.Data, tmp_path: pathlib.Path) -> None:
    x, _ = _test_images(digits)

    class Means(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = tf.Variable(2.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1])])
        def __call__(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            rows = self.scale * tf.reduce_mean(pixels, axis=2)  # [B, 8, 1], to be flattened
            return {"features": rows, "logits": rows[:, :3, 0]}

    module = Means()
    path = str(tmp_path / "Row-Means")
    tf.saved_model.save(module, path, signatures=module.__call__)
    extractor = features.load(f"savedmodel:{path}", digits)
    found, logits = extractor(x)
    assert extractor.name == "row_means"
    np.testing.assert_allclose(found, 2 * x[..., 0].mean(axis=2) / 255, atol=1e-5)
    np.testing.assert_array_equal(logits, found[:, :3])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.weights.h5", "x_notop.weights.h5"])
def test_inception(digits: data.Data, tmp_path: pathlib.Path, name: str) -> None:
    top = "notop" not in name
    shape = (299, 299, 3)
    keras.applications.InceptionV3(
        weights=None, include_top=top, pooling=None if top else "avg", input_shape=shape
    ).save_weights(tmp_path / name)
    extractor = features.load(f"inception:{tmp_path / name}", digits)
    found, logits = extractor(_test_images(digits)[0][:2])
    assert (extractor.name, found.shape) == ("keras_inception_v3", (2, 2048))
    assert (logits is not None and logits.shape == (2, 1000)) is top
    assert (found[0] != found[1]).any()
    (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(UserError, match="h5 holds no weights of Keras' InceptionV3"):
        features.load(f"inception:{tmp_path / name}", digits)


def test_bad_names_are_told_what_would_be_right(digits: data.Data, tmp_path: pathlib.Path) -> None:
    for name in ("inception", "classifier:x", "vgg", "savedmodel:"):
        with pytest.raises(ValueError, match=f"inception:PATH. Received: --features={name}"):
            features.load(name, digits)
    with pytest.raises(UserError, match="there is no /nowhere"):
        features.load("inception:/nowhere", digits)
    with pytest.raises(UserError, match="is no SavedModel"):
        features.load(f"savedmodel:{tmp_path}", digits)
