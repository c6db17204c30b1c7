"""One picture: safe decoding, flattening to 8-bit grey or colour, cropping and resizing.

Pillow's resampling works in fixed point, so the pixels do not depend on the machine.
"""

import warnings
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
ORIENTATION = 0x0112  # EXIF tag


def decode(file) -> Image.Image:
    """The first frame of a PNG, JPEG, BMP, WebP or TIFF, upright, in mode L or RGB; transparency becomes white.

    Args:
        file: path or binary stream.

    Raises:
        ValueError: the file is no such picture, is truncated, or has more than Image.MAX_IMAGE_PIXELS pixels.
    """
    try:
        with Image.open(file, formats=FORMATS) as picture:
            w, h = picture.size
            if Image.MAX_IMAGE_PIXELS and w * h > Image.MAX_IMAGE_PIXELS:
                raise ValueError(f"{w} x {h} pixels, more than the limit of {Image.MAX_IMAGE_PIXELS}")
            picture.load()
            return flatten(upright(picture))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"too many pixels ({error})") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError("no known picture format") from error
    except (OSError, SyntaxError, EOFError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


@contextmanager
def bombs_are_errors():
    """Makes Pillow's decompression bomb warnings errors; entered once, outside the decoding threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def upright(picture: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    return ImageOps.exif_transpose(picture) if picture.getexif().get(ORIENTATION, 1) != 1 else picture


def flatten(picture: Image.Image) -> Image.Image:
    """Mode L (grey sources) or RGB; 16-bit grey is scaled by 255/65535, transparency is laid on white."""
    mode = picture.mode
    if mode.startswith("I"):
        v = np.asarray(picture).astype(np.int64)
        if v.min() < 0 or v.max() > 65535:
            raise ValueError(f"grey values from {v.min()} to {v.max()}, outside 16 bits")
        return Image.fromarray(((v * 255 + 32767) // 65535).astype(np.uint8))
    if mode == "F":
        raise ValueError("floating-point pixels, which have no fixed range")
    grey = mode in ("1", "L", "LA", "La")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        colour = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), colour).convert("RGB")
    return convert(picture, 1 if grey else 3)


def convert(picture: Image.Image, channels: int) -> Image.Image:
    """Mode L for 1 channel (ITU-R 601: .299 R + .587 G + .114 B), RGB for 3."""
    mode = "L" if channels == 1 else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def centre_crop(picture: Image.Image, h: int, w: int) -> Image.Image:
    """The central h x w pixels; with an odd remainder the extra row or column is cut at the bottom or right."""
    left, top = (picture.width - w) // 2, (picture.height - h) // 2
    return picture.crop((left, top, left + w, top + h))


def fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Centre crop to the aspect ratio of `size` = (h, w), then resize.

    A crop that is a whole multiple of the size in both directions is averaged over blocks; other reductions use the
    antialiased triangle filter, enlargements the bicubic one.
    """
    h, w = size
    if picture.size == (w, h):
        return picture
    crop_h, crop_w = picture.height, picture.width
    if crop_w * h > crop_h * w:
        crop_w = max(1, (2 * crop_h * w + h) // (2 * h))
    else:
        crop_h = max(1, (2 * crop_w * h + w) // (2 * w))
    picture = centre_crop(picture, crop_h, crop_w)
    if crop_h % h == 0 and crop_w % w == 0:
        return picture.reduce((crop_w // w, crop_h // h))
    filter_ = Image.Resampling.BILINEAR if crop_h >= h and crop_w >= w else Image.Resampling.BICUBIC
    return picture.resize((w, h), filter_)
