"""PatchGAN: a discriminator that judges patches of an image, each by one logit.

Reference: P. Isola, J.-Y. Zhu, T. Zhou, A. Efros. Image-to-Image Translation with Conditional
Adversarial Networks. CVPR 2017, sections 3.2.2 and 6.1.2: convolutions of 4x4, of stride 2 but for
the last two, leaky ReLU 0.2, no norm in the first layer, weights N(0, 0.02).
"""

from collections.abc import Callable, Sequence

import keras

from tfgen.layers.leaky_relu import LeakyReLU
from tfgen.networks import translation

# Side of the patch in pixels -> convolutions of stride 2.
HALVINGS = {16: 1, 34: 2, 70: 3, 142: 4, 286: 5}
PATCHES = ("1", *map(str, HALVINGS), "image")


def patch_side(patch: str, image_shape: Sequence[int]) -> int:
    """The side in pixels of a patch by name; "image" is the smallest that covers the image.

    Raises:
        ValueError: if there is no such patch, or the image is too small for it.
    """
    if patch not in PATCHES:
        raise ValueError(
            f"--patch must be one of {', '.join(PATCHES)}: there is no architecture for others. "
            f"Received: --patch={patch}"
        )
    if patch == "1":
        return 1
    sides = [side for side in HALVINGS if map_side(min(image_shape[:2]), side) >= 1]
    if patch == "image":
        wanted = [side for side in sides if side >= max(image_shape[:2])]
        if not sides:
            raise ValueError(_too_small(image_shape, "16"))
        return wanted[0] if wanted else sides[-1]
    if int(patch) not in sides:
        raise ValueError(_too_small(image_shape, patch))
    return int(patch)


def map_side(side: int, patch: int) -> int:
    """Side of the map of logits of an image's side, 0 or less if it is too small."""
    for _ in range(HALVINGS[patch]):
        side = -(-side // 2)
    return side - 2


def _too_small(image_shape: Sequence[int], patch: str) -> str:
    least = (2 << HALVINGS[int(patch)]) + 1
    return (
        f"--patch={patch} needs images of at least {least}x{least}. "
        f"Received: {image_shape[0]}x{image_shape[1]}; give a smaller --patch"
    )


def discriminator(
    channels: int,
    *,
    patch: int = 70,
    filters: int = 64,
    norm: Callable[[], keras.layers.Layer] | None = None,
    logit_bias: bool = True,
    seed: int = 0,
    name: str = "discriminator",
) -> keras.Sequential:
    """Images [B, H, W, channels] of any size to logits [B, h, w, 1], one for each patch.

    For example 256x256 with patches of 70 gives 30x30 logits: convolutions to 128x128x64,
    64x64x128, 32x32x256, 31x31x512 and 30x30x1.

    Args:
        channels: of the image; of the source and the target together for a conditional one.
        patch: side of the patches in pixels: 1 or a key of `HALVINGS`.
        filters: channels of the first map; later ones have up to 8 times as many.
        norm: makes the normalisation of each map but the first; None is off.
        logit_bias: whether the logits have a bias; without effect on a difference of logits.
        seed: int, of the initial weights.
        name: of the network.

    Raises:
        ValueError: if there is no architecture for such patches.
    """
    if patch != 1 and patch not in HALVINGS:
        raise ValueError(f"patch must be one of {[1, *HALVINGS]}. Received: patch={patch}")
    init = translation.initializers(seed + 500)

    def convolution(width: int, side: int, stride: int, bias: bool = True) -> list:
        # By 4 pixels in steps of 2, "same" pads one pixel at each edge, as the paper's code does.
        padded = [keras.layers.ZeroPadding2D(1)] if side == 4 and stride == 1 else []
        return [
            *padded,
            keras.layers.Conv2D(
                width,
                side,
                strides=stride,
                padding="valid" if padded else "same",
                use_bias=bias,
                kernel_initializer=next(init),
            ),
        ]

    def hidden(width: int, side: int, stride: int) -> list:
        normed = [norm()] if norm else []
        return [*convolution(width, side, stride, not normed), *normed, LeakyReLU(0.2)]

    side = 1 if patch == 1 else 4
    strides = [1] if patch == 1 else [2] * HALVINGS[patch]
    layers = [keras.Input((None, None, channels))]
    layers += [*convolution(filters, side, strides[0]), LeakyReLU(0.2)]
    widths = [filters * min(2**level, 8) for level in range(1, len(strides) + 1)]
    for width, stride in zip(widths, [*strides[1:], 1], strict=True):
        layers += hidden(width, side, stride)
    return keras.Sequential([*layers, *convolution(1, side, 1, logit_bias)], name=name)
