"""MNIST's idx files, plain or gzip: big-endian magic 0x00000803, sizes N, H, W, then the pixels as bytes."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from .common import Request, bad, check_bytes, gather, held_out, limited, read_up_to

IMAGES, LABELS = 0x803, 0x801
NAMES = {"train": ("train-images",), "test": ("t10k-images", "test-images")}
MAX_DEFLATE = 1032  # no deflate stream is longer than this many times its packed length


def is_mnist(path: Path) -> bool:
    return bool(candidates(path, "train") + candidates(path, "test")) if path.is_dir() else "idx3" in path.name


def open_mnist(path: Path, request: Request):
    """A folder with train-images-idx3-ubyte and t10k-images-idx3-ubyte (or .gz), or one such images file.

    In a folder `train` and `test` are the two files, and labels come from the idx1 files beside them if present. One
    file is read as it is, each tenth image held out.

    Raises:
        ValueError: a file is missing, truncated, too long or no idx file of images; names it.
    """
    if not path.is_dir():
        source, labels = read_pair(path)
        chosen = limited(held_out(len(source), request.split), request, path)
    else:
        parts = ("train", "test") if request.split == "all" else (request.split,)
        pairs = [read_pair(find(path, part)) for part in parts]
        if len({images.shape[1:] for images, _ in pairs}) > 1:
            raise bad(path, "train and test images of one size", [images.shape[1:] for images, _ in pairs])
        source = np.concatenate([images for images, _ in pairs])
        labelled = all(labels is not None for _, labels in pairs)
        labels = np.concatenate([labels for _, labels in pairs]) if labelled else None
        chosen = limited(np.arange(len(source)), request, path)
    return gather(source, chosen, request, path), None if labels is None else labels[chosen]


def candidates(folder: Path, part: str) -> list[Path]:
    return [file for name in NAMES[part] for file in folder.glob(f"*{name}[-.]idx3*")]


def find(folder: Path, part: str) -> Path:
    files = candidates(folder, part)
    if len(files) != 1:
        raise bad(folder, f"one file {NAMES[part][0]}-idx3-ubyte (or .gz)", f"{len(files)} of them")
    return files[0]


def read_pair(path: Path):
    """uint8 (N, 1, H, W) and int64 (N,) or None."""
    images = read_idx(path, IMAGES)[:, None]
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if beside == path or not beside.is_file():
        return images, None
    labels = read_idx(beside, LABELS).astype(np.int64)
    if len(labels) != len(images):
        raise bad(beside, f"{len(images)} labels, as many as images", len(labels))
    return images, labels


def read_idx(path: Path, magic: int) -> np.ndarray:
    """uint8 array of the header's shape; the header is checked against the length before the data are read."""
    dims = magic & 0xFF
    packed = path.stat().st_size
    try:
        with open(path, "rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if is_gzip else open(path, "rb") as stream:
            header = stream.read(4 * (1 + dims))
            if len(header) != 4 * (1 + dims) or int.from_bytes(header[:4], "big") != magic:
                raise bad(path, f"an idx{dims} file with magic 0x{magic:08x}", f"first bytes 0x{header[:4].hex()}")
            shape = tuple(np.frombuffer(header, ">u4")[1:].tolist())
            length = math.prod(shape)
            longest = packed * MAX_DEFLATE if is_gzip else packed - len(header)
            if not 0 < length <= longest:
                raise bad(path, f"{length} bytes of data for shape {shape}" if length else "data", f"at most {longest}")
            check_bytes(length, path)
            content = read_up_to(stream, length + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise bad(path, "an intact gzip file", error) from error
    if len(content) != length:
        raise bad(path, f"{length} bytes of data for shape {shape}", "fewer" if len(content) < length else "more")
    return np.frombuffer(content, np.uint8).reshape(shape)
