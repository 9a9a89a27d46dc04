"""Convolutional generator and discriminator of DCGAN, for any image side that halves to 7 or less.

Reference: A. Radford, L. Metz, S. Chintala. Unsupervised Representation Learning with Deep
Convolutional Generative Adversarial Networks. ICLR 2016, section 3: strided convolutions instead of
pooling, batch norm but at the generator's output and the discriminator's input, ReLU in G, leaky
ReLU 0.2 in D, tanh output, weights N(0, 0.02).
"""

from collections.abc import Callable, Iterator, Sequence

import keras

from tfgen.layers.batch_normalization import BatchNormalization
from tfgen.layers.leaky_relu import LeakyReLU

Norm = Callable[[], keras.layers.Layer]
SIDES = (4, 5, 6, 7)  # of the smallest feature map
KERNEL = 5


def halvings(image_shape: Sequence[int]) -> int:
    """How often both sides of an image are halved until the shorter one is 7 or less.

    For example 28 -> 14 -> 7 are 2, 64 -> 32 -> 16 -> 8 -> 4 are 4, 8 -> 4 is 1.

    Raises:
        ValueError: if a side does not divide so often, with the sides that do.
    """
    height, width = image_shape[:2]
    count = 0
    while min(height, width) > max(SIDES) and not (height % 2 or width % 2):
        height, width, count = height // 2, width // 2, count + 1
    if not count or min(height, width) not in SIDES:
        valid = sorted(side * 2**n for side in SIDES for n in range(1, 6))
        raise ValueError(
            "the convolutional networks make images whose sides are 4 to 7 times a power of two: "
            f"{', '.join(map(str, valid))}. Received: {image_shape[0]}x{image_shape[1]}. "
            "Set --image_size"
        )
    return count


def batch_norm() -> BatchNormalization:
    """Batch norm over the global batch: all replicas share its statistics, as one device would."""
    return BatchNormalization(momentum=0.9, epsilon=1e-5, synchronized=True)


def generator(
    latent_dim: int,
    image_shape: Sequence[int],
    *,
    filters: int = 64,
    norm: Norm | None = batch_norm,
    seed: int = 0,
    name: str = "generator",
) -> keras.Sequential:
    """Latents [B, latent_dim] to images [B, H, W, C] in [-1, 1].

    For example 28x28x1 with 64 filters: 100 -> 7x7x128 -> 14x14x64 -> 28x28x1.

    Args:
        latent_dim: dimensions of the latents.
        image_shape: (height, width, channels).
        filters: channels of the last hidden map; each map before has twice as many.
        norm: makes a normalisation layer for each hidden map; None is off.
        seed: int, of the initial weights.
        name: of the network.
    """
    count = halvings(image_shape)
    height, width, channels = image_shape
    smallest = (height >> count, width >> count, filters << (count - 1))
    init = _initializers(seed)
    layers = [
        keras.Input((latent_dim,)),
        keras.layers.Dense(
            smallest[0] * smallest[1] * smallest[2],
            use_bias=norm is None,
            kernel_initializer=next(init),
        ),
        keras.layers.Reshape(smallest),
    ]
    for level in reversed(range(count)):
        layers += [*_norm(norm), keras.layers.ReLU()]
        layers.append(
            keras.layers.Conv2DTranspose(
                filters << (level - 1) if level else channels,
                KERNEL,
                strides=2,
                padding="same",
                use_bias=norm is None or not level,
                activation=None if level else "tanh",
                kernel_initializer=next(init),
            )
        )
    return keras.Sequential(layers, name=name)


def discriminator(
    image_shape: Sequence[int],
    *,
    filters: int = 64,
    norm: Norm | None = batch_norm,
    head: Sequence[keras.layers.Layer] = (),
    logit_bias: bool = True,
    seed: int = 0,
    name: str = "discriminator",
) -> keras.Sequential:
    """Images [B, H, W, C] to logits [B, 1]; the layers before the logit are named "features".

    For example 28x28x1 with 64 filters: 14x14x64 -> 7x7x128 -> 6272 -> 1.

    Args:
        image_shape: (height, width, channels).
        filters: channels of the first map; each map after it has twice as many.
        norm: makes a normalisation layer for each map but the first; None is off.
        head: further layers between the features and the logit, e.g. minibatch discrimination.
        logit_bias: whether the logit has a bias; without effect on a difference of logits.
        seed: int, of the initial weights.
        name: of the network.
    """
    init = _initializers(seed + 500)
    layers: list = [keras.Input(tuple(image_shape))]
    for level in range(halvings(image_shape)):
        normed = _norm(norm) if level else []
        layers.append(
            keras.layers.Conv2D(
                filters << level,
                KERNEL,
                strides=2,
                padding="same",
                use_bias=not normed,
                kernel_initializer=next(init),
            )
        )
        layers += [*normed, LeakyReLU(0.2)]
    layers += [keras.layers.Flatten(name="features"), *head]
    layers.append(
        keras.layers.Dense(1, use_bias=logit_bias, kernel_initializer=next(init), name="logit")
    )
    return keras.Sequential(layers, name=name)


def _norm(norm: Norm | None) -> list[keras.layers.Layer]:
    return [norm()] if norm else []


def _initializers(seed: int) -> Iterator[keras.initializers.Initializer]:
    while True:
        seed += 1
        yield keras.initializers.RandomNormal(stddev=0.02, seed=seed)
