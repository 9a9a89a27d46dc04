"""U-Net: an encoder and a decoder with skips between the maps of one size.

Reference: P. Isola, J.-Y. Zhu, T. Zhou, A. Efros. Image-to-Image Translation with Conditional
Adversarial Networks. CVPR 2017, sections 3.2.1 and 6.1.1: encoder C64-C128-C256-C512 (5 times),
decoder CD512 (3 times)-C512-C256-C128-C64, 4x4 with stride 2, leaky ReLU 0.2 and ReLU, no norm in
the first layer, dropout 0.5 in the first three of the decoder, weights N(0, 0.02).
"""

import math
from collections.abc import Callable

import keras

from tfgen.layers.leaky_relu import LeakyReLU
from tfgen.layers.seeded_dropout import SeededDropout
from tfgen.networks import translation

_DROPPED = 3  # Maps of the decoder that have dropout, from the bottleneck on.


def unet(
    channels: int,
    outputs: int,
    *,
    depth: int = 8,
    filters: int = 64,
    norm: Callable[[], keras.layers.Layer] | None = None,
    norm_bottleneck: bool = False,
    dropout: float = 0.5,
    dropout_in_inference: bool = True,
    seed: int = 0,
    name: str = "generator",
) -> keras.Model:
    """Images [B, H, W, channels] and a seed int32 [2] to images [B, H, W, outputs] in [-1, 1].

    Both sides must be multiples of 2^depth. For example 256x256 with depth 8 has maps of 128, 64,
    32, 16, 8, 4, 2 and 1 pixels.

    Args:
        channels: of the images that go in.
        outputs: channels of those that come out.
        depth: how often the sides are halved.
        filters: channels of the largest map; smaller ones have up to 8 times as many.
        norm: makes a normalisation; None is off. The largest map has none.
        norm_bottleneck: whether the smallest map has one: not where it is one pixel, whose
            statistics of one image make every channel beta.
        dropout: part of the values dropped in the first three maps of the decoder.
        dropout_in_inference: whether they are dropped in inference as well, as noise.
        seed: int, of the initial weights.
        name: of the network.
    """
    init = translation.initializers(seed)
    image = keras.Input((None, None, channels), name="image")
    noise = keras.Input(batch_shape=(2,), dtype="int32", name="seed")

    def convolution(kind: type, width: int, bias: bool) -> keras.layers.Layer:
        return kind(
            width, 4, strides=2, padding="same", use_bias=bias, kernel_initializer=next(init)
        )

    skips, x = [], image
    for level in range(depth):
        normed = norm is not None and 0 < level and (level < depth - 1 or norm_bottleneck)
        if level:
            x = LeakyReLU(0.2)(x)
        x = convolution(keras.layers.Conv2D, filters * min(2**level, 8), not normed)(x)
        x = norm()(x) if norm and normed else x
        skips.append(x)
    skips.pop()
    for level in reversed(range(depth - 1)):
        x = keras.layers.ReLU()(x)
        width = filters * min(2**level, 8)
        x = convolution(keras.layers.Conv2DTranspose, width, norm is None)(x)
        x = norm()(x) if norm else x
        place = depth - 2 - level
        if dropout and place < _DROPPED:
            x = SeededDropout(dropout, salt=place, in_inference=dropout_in_inference)([x, noise])
        x = keras.layers.Concatenate()([x, skips.pop()])
    x = convolution(keras.layers.Conv2DTranspose, outputs, True)(keras.layers.ReLU()(x))
    return keras.Model([image, noise], keras.layers.Activation("tanh")(x), name=name)


def deepest(height: int, width: int) -> int:
    """How often an image can be halved: until its shorter side is one pixel, 256 or 250 -> 8."""
    return math.ceil(math.log2(min(height, width)))


def depth_for(height: int, width: int) -> int:
    """How often an image is halved: 256x256 -> 8, 256x384 -> 7, 250x250 -> 8, 300x300 -> 6.

    As often as it can be while mirroring it up to sides that halve so often, 2^depth or a multiple,
    makes neither over a quarter longer.
    """

    def fits(depth: int) -> bool:
        return all(-(-side // 2**depth) * 2**depth <= 1.25 * side for side in (height, width))

    return max((d for d in range(deepest(height, width) + 1) if fits(d)), default=0)
