"""Pairs made of images: what each task leaves of them."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data.streams import assert_seeks_and_shares, take, whole
from tfgen import data
from tfgen.data import tasks
from tfgen.jitter import Jitter


def load(name, data_dir=None, **arguments):
    arguments = {"image_range": "uint8", "needs": ("source", "target")} | arguments
    return data.load(name, data_dir=data_dir, **arguments)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve pictures of noise in colour."""
    path = tmp_path_factory.mktemp("noise")
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{number:02}.png")
    return path


@pytest.mark.parametrize("kind", tasks.KINDS)
def test_targets_are_the_images(root, kind):
    images = whole(load(f"folder:{root}", needs=("image",)), "train")["image"]
    loaded = load(f"{kind}:folder:{root}")
    batch = whole(loaded, "train")
    np.testing.assert_array_equal(batch["target"], images)
    assert loaded.spec.shapes["target"] == (8, 12, 3)
    channels = 1 if kind in ("colorize", "edges") else 3
    assert loaded.spec.shapes["source"] == batch["source"].shape[1:] == (8, 12, channels)
    assert_seeks_and_shares(loaded, batch_size=4, steps=12, start=5)


def test_colorize_shows_the_luma(root):
    batch = whole(load(f"colorize:folder:{root}"), "train")
    expected = batch["target"] @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(batch["source"][..., 0], expected, atol=0.5 + 1e-9)
    by_pillow = np.asarray(Image.fromarray(batch["target"][0]).convert("L"))
    np.testing.assert_allclose(batch["source"][0, ..., 0], by_pillow, atol=1)


def test_edges_by_hand():
    image = np.zeros((2, 6, 6, 1), np.uint8)
    image[0, :, 3:] = tasks.STEP + 1
    image[1, :, 3:] = tasks.STEP
    found = tasks.edges(tf.constant(image)).numpy()
    expected = np.full((6, 6, 1), 255, np.uint8)
    expected[:, 2:4] = 0  # both sides of the step
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], 255)


def test_super_resolution(data_dir, digits):
    loaded = load("super_resolution:digits", data_dir)
    batch = whole(loaded, "test")
    assert loaded.spec.num_classes == 10
    np.testing.assert_array_equal(batch["label"], whole(digits, "test")["label"])
    small = tf.image.resize(batch["target"], [2, 2], "bicubic", antialias=True)
    expected = tf.image.resize(small, [8, 8], "bicubic").numpy()
    np.testing.assert_allclose(batch["source"], np.clip(expected, 0, 255), atol=0.51)
    flat = tf.fill([1, 9, 7, 3], tf.constant(77, tf.uint8))
    np.testing.assert_array_equal(tasks.coarse(flat), flat)


def test_inpaint_hides_a_square_somewhere(root):
    loaded = load(f"inpaint:folder:{root}")
    batch = take(loaded, 100, batch_size=4)
    seen = set()
    for left_over, image in zip(batch["source"], batch["target"], strict=True):
        grey = (left_over == tasks.HIDDEN).all(axis=-1) & (image != tasks.HIDDEN).any(axis=-1)
        (top, left), (bottom, right) = np.argwhere(grey).min(0), np.argwhere(grey).max(0)
        assert (bottom - top, right - left) == (3, 5)  # 4x6 of 8x12
        expected = image.copy()
        expected[top : top + 4, left : left + 6] = tasks.HIDDEN
        np.testing.assert_array_equal(left_over, expected)
        seen.add((int(top), int(left)))
    assert seen == set(itertools.product(range(5), range(7)))  # 35 places, 400 draws
    one, other = (whole(loaded, "test", seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(one["source"], other["source"])


def test_jitter_comes_first(root):
    loaded = load(f"colorize:folder:{root}", jitter=Jitter(resize=(12, 12), crop=(8, 6), flip=True))
    assert loaded.spec.shapes == {"source": (8, 6, 1), "target": (8, 6, 3)}
    batch = take(loaded, 3, batch_size=4)
    np.testing.assert_array_equal(batch["source"], tasks.luma(tf.constant(batch["target"])))


def test_sources_and_targets_come_in_range(data_dir):
    batch = whole(load("edges:digits", data_dir, image_range="symmetric"), "test")
    assert set(np.unique(batch["source"])) == {-1.0, 1.0}
    assert (batch["target"].min(), batch["target"].max()) == (-1.0, 1.0)


def test_errors(data_dir):
    for name, message in {
        "colorize:digits": "colorize: needs images in colour; those of 'digits' are grey.",
        "edges:ring8": "edges: needs a data set with 'image'; 'ring8' has point, label.",
        "inpaint:folder:/no/where": "folder:/no/where is not a folder.",
        "edges:dijits": "Unknown data set 'dijits': did you mean 'digits'?",
        "edges:": "Unknown data set 'edges:': ",
    }.items():
        with pytest.raises(data.DataError, match=f"^{message}"):
            load(name, data_dir)
