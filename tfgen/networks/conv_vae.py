"""Convolutional encoder and decoder of a conditional VAE, which take vectors besides the image.

Reference: X. Yan, J. Yang, K. Sohn, H. Lee. Attribute2Image: Conditional Image Generation from
Visual Attributes. ECCV 2016: the encoder of their code; the decoder is its mirror.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from tfgen.networks import dcgan


def encoder(
    image_shape: Sequence[int],
    given: Sequence[int],
    filters: Sequence[int],
    units: int,
    latents: int,
    *,
    seed: int = 0,
    name: str = "encoder",
) -> keras.Model:
    """From an image and vectors of `given` sizes to means and log sigmas, [B, 2 * latents].

    For example 64x64x3 with the paper's filters: 32x32x64 -> 16x16x128 -> 8x8x256 -> 4x4x256 ->
    1024 -> 1024, joined by the vectors -> 1024 -> 2 * latents.

    Raises:
        ValueError: if a side of the image cannot be halved for each of the filters.
    """
    _smallest(image_shape, filters)
    init = _initializers(seed)
    image, *vectors = (keras.Input(tuple(shape)) for shape in (image_shape, *zip(given)))
    x = image
    for level, channels in enumerate(filters):
        x = _convolution(x, channels, level, next(init), norm=level > 0)
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    for _ in range(2):
        x = keras.layers.Dense(units, "relu", kernel_initializer=next(init))(x)
    x = keras.layers.Concatenate()([x, *vectors])
    x = keras.layers.Dense(units, "relu", kernel_initializer=next(init))(x)
    x = keras.layers.Dense(2 * latents, kernel_initializer=next(init))(x)
    return keras.Model([image, *vectors], x, name=name)


def decoder(
    given: Sequence[int],
    image_shape: Sequence[int],
    filters: Sequence[int],
    units: int,
    *,
    seed: int = 0,
    name: str = "decoder",
) -> keras.Model:
    """From vectors of `given` sizes to logits of an image, [B, H, W, C].

    For example 64x64x3 with the paper's filters: vectors -> 1024 -> 4x4x256 -> 8x8x256 ->
    16x16x256 -> 32x32x128 -> 64x64x64 -> 64x64x3.

    Raises:
        ValueError: if a side of the image cannot be halved for each of the filters.
    """
    smallest = (*_smallest(image_shape, filters), filters[-1])
    init = _initializers(seed)
    vectors = [keras.Input((size,)) for size in given]
    x = keras.layers.Concatenate()(vectors) if len(vectors) > 1 else vectors[0]
    for width in (units, math.prod(smallest)):
        x = keras.layers.Dense(width, "relu", kernel_initializer=next(init))(x)
    x = keras.layers.Reshape(smallest)(x)
    for level, channels in reversed(list(enumerate(filters))):
        x = keras.layers.UpSampling2D()(x)
        x = _convolution(x, channels, level, next(init), norm=True)
    x = keras.layers.Conv2D(image_shape[-1], 5, padding="same", kernel_initializer=next(init))(x)
    return keras.Model(vectors if len(vectors) > 1 else vectors[0], x, name=name)


def _smallest(image_shape: Sequence[int], filters: Sequence[int]) -> tuple[int, int]:
    """Height and width after a halving for each of the filters."""
    height, width = image_shape[:2]
    parts = 2 ** len(filters)
    if not filters or height % parts or width % parts:
        raise ValueError(
            "both sides of the images must divide by 2 for each of the filters, of which there is "
            f"one at least. Received: images of {height}x{width}, filters {tuple(filters)}. Set "
            "--foreground_filters, --background_filters or --image_size"
        )
    return height // parts, width // parts


def _convolution(x: Any, channels: int, level: int, init: Any, norm: bool) -> Any:
    """Convolution, batch norm and ReLU; 5x5 on the two finest levels, 3x3 on others."""
    x = keras.layers.Conv2D(
        channels, 5 if level < 2 else 3, padding="same", use_bias=not norm, kernel_initializer=init
    )(x)
    return keras.layers.ReLU()(dcgan.batch_norm()(x) if norm else x)


def _initializers(seed: int) -> Iterator[keras.initializers.Initializer]:
    return (keras.initializers.GlorotUniform(1000 * seed + layer) for layer in itertools.count())
