"""One image file -> uint8 pixels, with a defined outcome for every odd or damaged file.

Pillow is imported when first used, and none of its global settings is changed.
"""

import dataclasses
import os
import warnings
from typing import Any

import numpy as np

Size = int | tuple[int, int] | None  # see `read_pixels`

MAX_PIXELS = 64 * 10**6  # larger by its header: taken for a decompression bomb, not decoded
_GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_ORIENTATION = 0x0112  # the EXIF tag
_TRANSPOSED = (5, 6, 7, 8)  # orientations that swap width and height


class BadImageError(Exception):
    """The reason why a file gives no pixels."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What an image file says of itself, orientation applied."""

    height: int
    width: int
    grey: bool


def read_header(path: str) -> Header:
    """Reads size and colour without decoding; not for use in several threads (warnings filter)."""
    from PIL import Image

    if os.path.getsize(path) == 0:
        raise BadImageError("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(path)
        except Image.UnidentifiedImageError:
            raise BadImageError("not an image that Pillow can read") from None
        except Image.DecompressionBombError:
            raise BadImageError(f"more than {MAX_PIXELS // 10**6} megapixels") from None
        except Exception as error:  # decoders raise what they like on damaged headers
            raise BadImageError(f"damaged header ({error})") from None
        with image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadImageError(
                    f"{width}x{height} pixels, more than {MAX_PIXELS // 10**6} megapixels"
                )
            if _orientation(image) in _TRANSPOSED:
                width, height = height, width
            return Header(height, width, image.mode in _GREY_MODES)


def read_pixels(path: str, size: Size, channels: int) -> np.ndarray:
    """Decodes a file that `read_header` accepted.

    EXIF orientation is applied; transparency is laid on white; palettes, CMYK and the like become
    RGB; 16-bit grey is scaled to 8 bits; of an animation the first frame is taken.

    Args:
        path: the image file.
        size: side of the result: the shorter side is resized to it (Lanczos, antialiased), then the
            centre square is cropped, e.g. 218x178 -> 78x64 -> 64x64; a pair to resize the whole
            image to that height and width; None to keep the size.
        channels: 1 for grey or 3 for RGB.

    Returns:
        uint8 [H, W, channels].
    """
    return _pixels(_decoded(path, channels), size)


def read_halves(path: str, size: Size, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The left and the right half of a file of even width, each as `read_pixels` gives it."""
    image = _decoded(path, channels)
    middle = image.width // 2
    left = image.crop((0, 0, middle, image.height))
    right = image.crop((middle, 0, 2 * middle, image.height))
    return _pixels(left, size), _pixels(right, size)


def _decoded(path: str, channels: int) -> Any:
    """The Pillow image of a file, upright and opaque."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            opened.load()
            image = _on_white(_eight_bits(opened)).convert("L" if channels == 1 else "RGB")
            return ImageOps.exif_transpose(_with_orientation(image, _orientation(opened)))
    except BadImageError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, ...
        raise BadImageError(f"truncated or damaged ({error})") from None


def _pixels(image: Any, size: Size) -> np.ndarray:
    """A Pillow image, resized: uint8 [H, W, C]."""
    from PIL import Image

    if isinstance(size, int):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.resize((width, height), Image.Resampling.LANCZOS)
        image = image.crop((left, top, left + size, top + size))
    elif size is not None:
        image = image.resize(size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(image, np.uint8).reshape(image.height, image.width, -1)


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1


def _with_orientation(image: Any, orientation: int) -> Any:
    """`image` with only this EXIF tag, for ImageOps.exif_transpose."""
    image.getexif()[_ORIENTATION] = orientation
    return image


def _eight_bits(image: Any) -> Any:
    """Scales 16-bit grey, 0..65535, to 0..255; Pillow's own conversion would clip it."""
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise BadImageError(f"pixels of mode {image.mode!r} beyond 16 bits")
        return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    return image


def _on_white(image: Any) -> Any:
    """Lays an image with transparency of any kind on white."""
    from PIL import Image

    if "A" not in image.getbands() and "a" not in image.getbands():
        if "transparency" not in image.info:
            return image
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image)
