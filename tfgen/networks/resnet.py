"""Residual generator for images: down, residual blocks, up.

Reference: J.-Y. Zhu, T. Park, P. Isola, A. Efros. Unpaired Image-to-Image Translation using
Cycle-Consistent Adversarial Networks. ICCV 2017, section 7.2, after J. Johnson, A. Alahi,
L. Fei-Fei. Perceptual Losses for Real-Time Style Transfer. ECCV 2016: c7s1-64, d128, d256, R256
(6 or 9 times), u128, u64, c7s1-3, reflection padding, instance norm, weights N(0, 0.02).
"""

from collections.abc import Callable

import keras

from tfgen.layers.reflection_padding2d import ReflectionPadding2D
from tfgen.networks import translation

STRIDE = 4  # What both sides of an image must be multiples of.
LEAST = 8  # And the least of them: the smallest map, of a quarter, is mirrored at its edges.


def resnet(
    channels: int,
    outputs: int,
    *,
    blocks: int = 9,
    filters: int = 64,
    norm: Callable[[], keras.layers.Layer] | None = None,
    seed: int = 0,
    name: str = "generator",
) -> keras.Model:
    """Images [B, H, W, channels] to images [B, H, W, outputs] in [-1, 1].

    Both sides must be multiples of 4, and 8 at least. For example 256x256x3 with 64 filters:
    256x256x64 -> 128x128x128 -> 64x64x256, 9 blocks, and back.

    Args:
        channels: of the images that go in.
        outputs: channels of those that come out.
        blocks: residual blocks.
        filters: channels of the largest map; the smallest has 4 times as many.
        norm: makes a normalisation; None is off.
        seed: int, of the initial weights.
        name: of the network.
    """
    init = translation.initializers(seed)

    def convolution(x: keras.KerasTensor, width: int, side: int) -> keras.KerasTensor:
        """Mirrored at the edges, so that the size stays."""
        x = ReflectionPadding2D(side // 2)(x)
        return keras.layers.Conv2D(
            width, side, use_bias=norm is None, kernel_initializer=next(init)
        )(x)

    def resized(kind: type, width: int) -> keras.layers.Layer:
        """Halves or doubles the sides."""
        kernel = {"use_bias": norm is None, "kernel_initializer": next(init)}
        return kind(width, 3, strides=2, padding="same", **kernel)

    def normed(x: keras.KerasTensor) -> keras.KerasTensor:
        return norm()(x) if norm else x

    image = keras.Input((None, None, channels), name="image")
    x = keras.layers.ReLU()(normed(convolution(image, filters, 7)))
    for width in (2 * filters, 4 * filters):
        x = keras.layers.ReLU()(normed(resized(keras.layers.Conv2D, width)(x)))
    for _ in range(blocks):
        y = keras.layers.ReLU()(normed(convolution(x, 4 * filters, 3)))
        x = keras.layers.Add()([x, normed(convolution(y, 4 * filters, 3))])
    for width in (2 * filters, filters):
        x = keras.layers.ReLU()(normed(resized(keras.layers.Conv2DTranspose, width)(x)))
    x = ReflectionPadding2D(3)(x)
    x = keras.layers.Conv2D(outputs, 7, activation="tanh", kernel_initializer=next(init))(x)
    return keras.Model(image, x, name=name)


def blocks_for(height: int, width: int) -> int:
    """6 residual blocks for images below 256 pixels, else 9 (section 7.2: 6 for 128)."""
    return 9 if min(height, width) >= 256 else 6
