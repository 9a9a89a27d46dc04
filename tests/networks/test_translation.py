"""U-Net, PatchGAN and residual generator: shapes, receptive fields, the papers' layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.instance_normalization import InstanceNormalization
from tfgen.layers.seeded_dropout import SeededDropout
from tfgen.networks import patchgan, resnet, unet

SEED = tf.constant([0, 1])


def field(patch: int, side: int) -> tuple[int, int]:
    """Pixels, from first to last, that the middle logit depends on."""
    network = patchgan.discriminator(1, patch=patch, filters=2)
    image = tf.random.stateless_normal([1, side, side, 1], [0, patch])
    with tf.GradientTape() as tape:
        tape.watch(image)
        logits = network(image)
        middle = logits[0, logits.shape[1] // 2, logits.shape[2] // 2, 0]
    rows = np.flatnonzero(np.abs(tape.gradient(middle, image)[0, :, :, 0]).sum(1))
    return rows.min(), rows.max()


@pytest.mark.parametrize(("patch", "side"), [(1, 16), (16, 48), (34, 96), (70, 192)])
def test_a_logit_sees_its_patch_and_no_more(patch, side) -> None:
    first, last = field(patch, side)
    assert last - first + 1 == patch


def test_the_papers_70_patches_on_256_pixels() -> None:
    network = patchgan.discriminator(6, norm=InstanceNormalization)
    assert network.compute_output_shape((None, 256, 256, 6)) == (None, 30, 30, 1)
    convolutions = [x for x in network.layers if isinstance(x, keras.layers.Conv2D)]
    assert [x.filters for x in convolutions] == [64, 128, 256, 512, 1]
    assert [x.strides[0] for x in convolutions] == [2, 2, 2, 1, 1]
    normed = [x for x in network.layers if isinstance(x, InstanceNormalization)]
    assert len(normed) == 3  # none in the first layer


@pytest.mark.parametrize(
    ("name", "side", "found"), [("1", 8, 1), ("16", 16, 16), ("70", 24, 70), ("image", 256, 286),
                                ("image", 32, 34), ("image", 64, 70)],
)  # fmt: skip
def test_patches_by_name(name, side, found) -> None:
    assert patchgan.patch_side(name, (side, side, 3)) == found


@pytest.mark.parametrize(
    ("name", "side", "says"),
    [
        ("70", 16, "--patch=70 needs images of at least 17x17. Received: 16x16"),
        ("50", 64, "--patch must be one of 1, 16, 34, 70, 142, 286, image"),
        ("image", 4, "--patch=16 needs images of at least 5x5. Received: 4x4"),
    ],
)
def test_patches_that_are_not_there_are_refused(name, side, says) -> None:
    with pytest.raises(ValueError, match=says):
        patchgan.patch_side(name, (side, side, 3))


def test_the_papers_unet_on_256_pixels() -> None:
    network = unet.unet(3, 1, depth=8, norm=InstanceNormalization)
    down = [x for x in network.layers if type(x) is keras.layers.Conv2D]
    up = [x for x in network.layers if type(x) is keras.layers.Conv2DTranspose]
    assert [x.filters for x in down] == [64, 128, 256, 512, 512, 512, 512, 512]
    assert [x.filters for x in up] == [512, 512, 512, 512, 256, 128, 64, 1]
    assert sum(isinstance(x, SeededDropout) for x in network.layers) == 3
    normed = sum(isinstance(x, InstanceNormalization) for x in network.layers)
    assert normed == 6 + 7  # not the first, the bottleneck of one pixel, and the last
    assert network.count_params() == pytest.approx(54.4e6, rel=0.01)  # as the authors' code


def test_skips_carry_the_image_past_the_bottleneck() -> None:
    network = unet.unet(1, 1, depth=3, filters=4, dropout=0.0, seed=1)
    image = tf.random.stateless_normal([1, 16, 16, 1], [0, 1])
    with tf.GradientTape() as tape:
        tape.watch(image)
        value = network([image, SEED])[0, 8, 8, 0]
    assert np.abs(tape.gradient(value, image)).max() > 0
    assert network([image, SEED]).shape == image.shape


def test_noise_is_in_the_dropout_alone() -> None:
    image = tf.random.stateless_normal([1, 16, 16, 1], [0, 1])
    for noisy in (True, False):
        network = unet.unet(1, 1, depth=4, filters=8, dropout_in_inference=noisy, seed=1)
        first, again, other = (
            network([image, tf.constant(s)], training=False).numpy()
            for s in ([0, 1], [0, 1], [0, 2])
        )
        np.testing.assert_array_equal(first, again)
        assert np.array_equal(first, other) != noisy


@pytest.mark.parametrize(
    ("size", "depth", "deepest"),
    [
        ((256, 256), 8, 8), ((256, 384), 7, 8), ((96, 96), 5, 7), ((250, 250), 8, 8),
        ((200, 200), 5, 8), ((300, 300), 6, 9), ((360, 640), 7, 9), ((15, 16), 4, 4),
    ],
)  # fmt: skip
def test_depth_follows_the_image(size, depth, deepest) -> None:
    assert (unet.depth_for(*size), unet.deepest(*size)) == (depth, deepest)


def test_the_papers_residual_generator() -> None:
    network = resnet.resnet(3, 3, blocks=9, norm=InstanceNormalization)
    assert network.count_params() == pytest.approx(11.38e6, rel=0.01)  # as the authors' code
    small = resnet.resnet(1, 3, blocks=2, filters=4, norm=InstanceNormalization)
    made = small(tf.random.stateless_normal([2, 12, 8, 1], [0, 1]))
    assert made.shape == (2, 12, 8, 3)
    assert np.abs(made).max() <= 1
    assert [resnet.blocks_for(s, s) for s in (128, 255, 256)] == [6, 6, 9]


def test_without_norm_convolutions_have_biases() -> None:
    for network in (resnet.resnet(1, 1, blocks=1, filters=2), unet.unet(1, 1, depth=3, filters=2)):
        kinds = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
        assert all(x.use_bias for x in network.layers if isinstance(x, kinds))


@pytest.mark.parametrize("patch", [16, 34, 70])
def test_side_of_the_map_is_the_networks(patch) -> None:
    network = patchgan.discriminator(1, patch=patch, filters=1)
    for side in range(17, 41, 3):
        made = network(tf.zeros([1, side, side + 1, 1]))
        assert made.shape[1:3] == tuple(patchgan.map_side(s, patch) for s in (side, side + 1))


def test_a_patch_without_an_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"patch must be one of \[1, 16, .* Received: patch=64"):
        patchgan.discriminator(3, patch=64)
