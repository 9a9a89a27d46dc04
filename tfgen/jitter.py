"""What is done to training images by chance: resized, cropped, flipped.

Apart from `tfgen.data`, so that a system can name it without loading TensorFlow.
"""

import dataclasses

from tfgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Random crops and flips, as of pix2pix and CycleGAN (286 -> 256, flips).

    Training images are resized whole, then a random part of them is taken, and turned left to right
    with probability 1/2. Validation and test images are resized whole to `crop` (`resize` where
    there is no crop), or give their middle where images are not resized; nothing is random.

    Attributes:
        resize: (height, width) in pixels, the aspect is not kept; None to leave images as they are.
        crop: (height, width) of the part that is taken; None for the whole image.
        flip: whether half of the images are turned left to right.
    """

    resize: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        for flag, size in (("resize", self.resize), ("crop", self.crop)):
            if size is not None and (len(size) != 2 or min(size) < 1):
                raise UserError(
                    f"--{flag} must be a height and a width of at least 1. Received: "
                    f"{','.join(map(str, size))}"
                )
