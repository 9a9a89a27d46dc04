"""Translation data made in code, whose right answers are known."""

import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests.data.streams import assert_seeks_and_shares, take, whole
from tfgen import data
from tfgen.data import mosaic, recolored, two_answers
from tfgen.jitter import Jitter


def load(name, data_dir, needs, **arguments):
    arguments = {"image_range": "uint8"} | arguments
    return data.load(name, data_dir=data_dir, needs=needs, **arguments)


def recolored_digits(data_dir, **arguments):
    return load("recolored_digits", data_dir, ("a", "b"), **arguments)


def enlarged(digits):
    """8x8 grey -> 16x16 RGB, each pixel 2x2."""
    return np.kron(digits, np.ones((1, 2, 2, 1), np.uint8)).repeat(3, axis=-1)


def test_partners_are_known_where_nothing_is_trained(data_dir, digits):
    loaded = recolored_digits(data_dir)
    spec = loaded.spec
    assert spec.shapes == {"a": (16, 16, 3), "b": (16, 16, 3), "label_a": (), "label_b": ()}
    assert (spec.train_size, spec.validation_size, spec.test_size) == (699, 100, 300)
    assert spec.num_classes == 10
    for split in ("validation", "test"):
        batch, plain = whole(loaded, split), whole(digits, split)
        np.testing.assert_array_equal(batch["a"], enlarged(plain["image"]))
        painted = recolored.paint(tf.constant(batch["a"] / 255.0)).numpy()
        np.testing.assert_allclose(batch["b"] / 255.0, painted, atol=0.51 / 255)
        for key in ("label_a", "label_b"):
            np.testing.assert_array_equal(batch[key], plain["label"])


def test_no_pairs_in_training(data_dir, digits):
    loaded, plain = recolored_digits(data_dir), whole(digits, "train")
    assert [loaded.count("train", key) for key in "ab"] == [698, 699]
    assert [loaded.count("test", key) for key in "ab"] == [300, 300]
    grey = enlarged(plain["image"])
    halves = [{image.tobytes() for image in part} for part in (grey[:698], grey[698:])]
    batch = take(loaded, 7, batch_size=99)
    assert {image.tobytes() for image in batch["a"]} <= halves[0]
    back = recolored.unpaint(tf.constant(batch["b"] / 255.0)).numpy()
    levels = np.unique(plain["image"])  # of 17 levels, the nearest
    back = levels[np.abs(255 * back[..., :1] - levels).argmin(axis=-1)][..., None].repeat(3, -1)
    assert {image.tobytes() for image in back} <= halves[1]
    labels = {image.tobytes(): label for image, label in zip(grey, plain["label"], strict=True)}
    np.testing.assert_array_equal(batch["label_a"], [labels[i.tobytes()] for i in batch["a"]])
    np.testing.assert_array_equal(batch["label_b"], [labels[i.tobytes()] for i in back])


def test_paint_by_hand():
    image = np.zeros((1, 4, 4, 3))
    image[0, 0, 1], image[0, 1, 0] = 1.0, 0.5
    found = recolored.paint(tf.constant(image)).numpy()[0]
    # Rows and columns that add up to 0 or 1 are lighter, to 2 or 3 darker.
    np.testing.assert_allclose(found[0, 0], [0.97, 0.92, 0.74])
    np.testing.assert_allclose(found[1, 1], [0.93, 0.88, 0.70])
    np.testing.assert_allclose(found[0, 1], [0.10, 0.14, 0.47])
    np.testing.assert_allclose(found[1, 0], [0.515 + 0.02, 0.51 + 0.02, 0.585 + 0.02])
    assert 0.0 <= found.min() <= found.max() <= 1.0


def test_unpaint_is_the_inverse():
    grey = tf.random.stateless_uniform([5, 9, 11, 1], [1, 2], dtype=tf.float64)
    image = tf.repeat(grey, 3, axis=-1)
    np.testing.assert_allclose(recolored.unpaint(recolored.paint(image)), image, atol=1e-9)
    # Of all 256 levels, stored as whole numbers, within one level.
    levels = np.arange(256.0).reshape(1, 16, 16, 1).repeat(3, -1) / 255
    stored = np.round(255 * recolored.paint(tf.constant(levels)).numpy())
    back = recolored.unpaint(tf.constant(stored / 255)).numpy()
    assert np.abs(back - levels).max() < 1 / 255
    far = tf.fill([1, 2, 2, 3], 2.0)
    np.testing.assert_array_equal(recolored.unpaint(far), np.zeros((1, 2, 2, 3)))


def test_recolored_in_range_and_size(data_dir):
    batch = whole(recolored_digits(data_dir, image_range="symmetric", image_size=20), "test")
    assert batch["a"].shape == batch["b"].shape == (300, 20, 20, 3)
    assert batch["a"].min() == -1.0
    assert batch["b"].mean() > 0.0 > batch["a"].mean()  # mostly paper, mostly black
    jitter = Jitter(resize=(20, 20), crop=(16, 16), flip=True)
    loaded = recolored_digits(data_dir, jitter=jitter)
    assert whole(loaded, "test")["b"].shape == (300, 16, 16, 3)
    np.testing.assert_array_equal(
        whole(loaded, "test")["a"], whole(recolored_digits(data_dir), "test")["a"]
    )


def answers_of(source):
    both = two_answers.answers(tf.constant(source / np.float32(255))).numpy()
    return np.round(255 * both).astype(np.uint8)


def test_two_answers(data_dir, digits):
    loaded = load("two_answers", data_dir, ("source", "target"))
    assert loaded.spec.shapes == {"source": (16, 16, 1), "target": (16, 16, 3), "label": ()}
    assert loaded.spec.train_size == 1397
    batch, plain = whole(loaded, "test"), whole(digits, "test")
    np.testing.assert_array_equal(batch["label"], plain["label"])
    expected = tf.image.resize(plain["image"], [16, 16]).numpy()
    np.testing.assert_allclose(batch["source"], expected, atol=0.51)
    answers = answers_of(batch["source"])
    assert answers.shape == (300, 2, 16, 16, 3)
    right = (answers == batch["target"][:, None]).all(axis=(2, 3, 4))
    assert (right.sum(axis=1) == 1).all()
    assert scipy.stats.binomtest(int(right[:, 0].sum()), 300).pvalue > 1e-3
    # The coin of an index is the same whatever the seed; other splits have others.
    np.testing.assert_array_equal(whole(loaded, "test", seed=5)["target"], batch["target"])
    # Anew in each epoch of training.
    train = take(loaded, 4, batch_size=1000)
    red = (answers_of(train["source"])[:, 0] == train["target"]).all(axis=(1, 2, 3))
    assert scipy.stats.binomtest(int(red.sum()), 4000).pvalue > 1e-3
    tosses = {}
    for image, toss in zip(train["source"], red, strict=True):
        tosses.setdefault(image.tobytes(), set()).add(bool(toss))
    assert np.mean([len(t) for t in tosses.values()]) > 1.6
    resumed = take(loaded, 2, batch_size=100, start_step=3)
    unbroken = take(loaded, 5, batch_size=100)
    np.testing.assert_array_equal(resumed["target"], unbroken["target"][300:])


def test_answers_by_hand():
    source = np.zeros((1, 1, 2, 1), np.float32)
    source[0, 0, 1] = 0.5
    found = two_answers.answers(tf.constant(source)).numpy()[0, :, 0]
    np.testing.assert_allclose(
        found, [[[0, 0, 0], [0.45, 0.075, 0.075]], [[0, 0, 0], [0.075, 0.125, 0.45]]], atol=1e-6
    )


NEEDS = ("source", "target", "segmentation")


def test_mosaics(data_dir):
    loaded = load("mosaic", data_dir, NEEDS)
    spec = loaded.spec
    assert spec.shapes == {
        "source": (32, 32, 3), "target": (32, 32, 3), "segmentation": (32, 32)
    }  # fmt: skip
    assert spec.dtypes == {"source": "uint8", "target": "uint8", "segmentation": "int32"}
    assert (spec.train_size, spec.test_size) == (100_000, 10_000)
    batch = whole(loaded, "test", limit=2000)
    palette = np.round(255 * np.array(mosaic.PALETTE)).astype(np.uint8)
    np.testing.assert_array_equal(batch["source"], palette[batch["segmentation"]])
    shares = np.bincount(batch["segmentation"].ravel(), minlength=6) / batch["segmentation"].size
    np.testing.assert_allclose(shares, 1 / 6, atol=0.03)  # 2000 images of a few regions
    # At each pixel: the class' mean, and the variance that its waves have.
    target = batch["target"] / 255.0
    for number in range(6):
        values = target[batch["segmentation"] == number]
        np.testing.assert_allclose(values.mean(axis=0), mosaic.MEANS[number], atol=0.01)
        waves = any(mosaic.WAVES[number])
        expected = mosaic.WAVE / np.sqrt(2) if waves else 0.0
        np.testing.assert_allclose(values.std(axis=0), expected, atol=0.01)
    assert whole(loaded, "test", limit=20, seed=8)["target"].tobytes() == (
        batch["target"][:20].tobytes()
    )
    assert set(whole(load("mosaic", data_dir, ("source", "target")), "test", 5)) == {
        "source", "target"
    }  # fmt: skip


def test_waves_have_random_phases(data_dir):
    """The mean of a texture over images is flat, so a regressor has nothing to draw."""
    batch = whole(load("mosaic", data_dir, NEEDS), "test", limit=4000)
    for number in range(6):
        of_class = batch["segmentation"] == number
        mean = (batch["target"] / 255.0 * of_class[..., None]).sum(0) / of_class.sum(0)[..., None]
        expected = np.broadcast_to(mosaic.MEANS[number], mean.shape)
        # About 670 images show the class at a pixel: 5 standard errors of the largest of 1,024.
        error = mosaic.WAVE / np.sqrt(2) / np.sqrt(of_class.sum(0).min())
        np.testing.assert_allclose(mean, expected, atol=5 * error + 0.5 / 255)


def test_textures_wave_as_they_are_named(data_dir):
    batch = whole(load("mosaic", data_dir, NEEDS), "test", limit=200)
    target, of_class = batch["target"].astype(np.float64), batch["segmentation"]
    for number, (along_rows, along_columns) in enumerate(mosaic.WAVES):
        for axis, waves in ((1, along_rows), (2, along_columns)):
            inside = np.diff(of_class, axis=axis) == 0
            inside &= np.take(of_class, range(31), axis=axis) == number
            steps = np.diff(target, axis=axis)[inside]
            assert (np.abs(steps).max() > 20) == bool(waves)


def test_mosaics_are_of_seed_and_position(data_dir):
    loaded = load("mosaic", data_dir, NEEDS)
    assert_seeks_and_shares(loaded, batch_size=10, steps=6, start=2)
    targets = take(loaded, 6, batch_size=10)["target"]
    assert len({image.tobytes() for image in targets}) == 60


def test_a_pair_and_its_segmentation_share_crop_and_flip(data_dir):
    loaded = load("mosaic", data_dir, NEEDS, jitter=Jitter(crop=(20, 24), flip=True))
    assert loaded.spec.shapes["segmentation"] == (20, 24)
    batch, full = take(loaded, 1, batch_size=100), take(load("mosaic", data_dir, NEEDS), 1,
                                                        batch_size=100)  # fmt: skip
    palette = np.round(255 * np.array(mosaic.PALETTE)).astype(np.uint8)
    np.testing.assert_array_equal(batch["source"], palette[batch["segmentation"]])
    flips = 0
    for part, image in zip(batch["target"], full["target"], strict=True):
        places = [
            step
            for top, left, step in itertools.product(range(13), range(9), (1, -1))
            if np.array_equal(image[top : top + 20, left : left + 24][:, ::step], part)
        ]
        assert places
        flips += places == [-1]
    assert 25 < flips < 75  # of 100


@pytest.mark.parametrize("name", ["mosaic", "two_answers"])
def test_images_made_in_code_can_be_resized(data_dir, name):
    loaded = load(name, data_dir, ("source", "target"), image_size=24)
    assert loaded.spec.shapes["target"] == (24, 24, 3)
    assert whole(loaded, "validation", 3)["source"].shape[1:3] == (24, 24)
    assert take(loaded, 1, batch_size=2)["source"].shape[1:3] == (24, 24)
