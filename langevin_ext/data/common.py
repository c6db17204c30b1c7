"""What the sources share: the request, the held-out part, memory and read limits, and fitting arrays to a size."""

import math
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .pictures import convert, fit

MAX_BYTES = 8 * 2**30  # most that one dataset, or one array read for it, may take in memory
BLOCK = 1 << 20
# What reading a broken, encrypted or unknown zip raises (NotImplementedError is a RuntimeError).
BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)
HOLD_OUT = 10  # sources without a division of their own: each tenth image is the test split


@dataclass(frozen=True)
class Request:
    """What the caller of open_dataset asked for."""

    size: tuple[int, int] | None = None  # (height, width); None keeps the source's
    channels: int | None = None  # None keeps the source's
    split: str = "train"
    limit: int | None = None


def bad(where, expected: str, got) -> ValueError:
    """The one form of every message about a source, on one line."""
    return ValueError(f"open_dataset: {where}: expected {expected}, got {' '.join(str(got).split())}")


def allocate(shape, where) -> np.ndarray:
    """Zeroed uint8 array of `shape`, refused by name above MAX_BYTES."""
    check_bytes(math.prod(shape), where)
    return np.zeros(shape, np.uint8)


def check_bytes(n_bytes: int, where) -> None:
    if n_bytes > MAX_BYTES:
        raise bad(
            where, f"at most {MAX_BYTES / 2**30:g} GiB of pixels (give limit= or a smaller size=)", f"{n_bytes} bytes"
        )


def read_up_to(stream, n_bytes: int) -> bytes:
    """At most n_bytes of the stream, read in blocks: a false header allocates no more than the stream holds."""
    blocks = []
    while n_bytes > 0 and (block := stream.read(min(n_bytes, BLOCK))):
        blocks.append(block)
        n_bytes -= len(block)
    return b"".join(blocks)


def held_out(n: int, split: str) -> np.ndarray:
    """Indices of a split of n images that have no division of their own: test = 9, 19, ..., train = the others."""
    indices = np.arange(n)
    test = indices % HOLD_OUT == HOLD_OUT - 1
    return {"train": indices[~test], "test": indices[test], "all": indices}[split]


def limited(indices: np.ndarray, request: Request, where) -> np.ndarray:
    """The first `limit` of the indices, refused when there are none."""
    if len(indices) == 0:
        raise bad(where, f"images in the {request.split!r} split", "none")
    return indices[: request.limit]


def gather(source, indices, request: Request, where, to_uint8=np.asarray) -> np.ndarray:
    """uint8 (n, C, H, W) from the rows `indices` of a (N, C, H, W) array or memory map, at the requested size.

    `to_uint8` turns one block of the source into uint8; the blocks keep a memory map larger than memory readable.
    """
    c, h, w = source.shape[1:]
    channels, size = request.channels or c, request.size or (h, w)
    changed = (channels, *size) != (c, h, w)
    if changed and c not in (1, 3):
        raise bad(where, "1 or 3 channels, which alone can be resized or converted", f"{c} channels")
    out = allocate((len(indices), channels, *size), where)
    rows = max(1, BLOCK * 16 // max(1, c * h * w))
    for start in range(0, len(indices), rows):
        block = to_uint8(source[indices[start : start + rows]])
        if not changed:
            out[start : start + rows] = block
            continue
        for i, pixels in enumerate(block):
            picture = Image.fromarray(pixels[0] if c == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
            out[start + i] = to_chw(fit(convert(picture, channels), size))
    return out


def to_chw(picture: Image.Image) -> np.ndarray:
    """uint8 (C, H, W) of a picture in mode L or RGB."""
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
