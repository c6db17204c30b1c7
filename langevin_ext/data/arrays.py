"""NumPy .npy and .npz files. Nothing is unpickled, and headers are checked against the file before allocation."""

import math
import zipfile
from functools import partial
from io import BytesIO
from pathlib import Path
from tokenize import TokenError

import numpy as np

from .common import BAD_ZIP, Request, bad, check_bytes, gather, held_out, limited, read_up_to

IMAGE_KEYS = ("images", "x", "data", "samples", "arr_0")
LABEL_KEYS = ("labels", "y")
SPLIT_KEYS = (
    ("x_train", "x_test", "y_train", "y_test"),
    ("train_images", "test_images", "train_labels", "test_labels"),
)
BAD_HEADER = (ValueError, TypeError, KeyError, OverflowError, SyntaxError, TokenError)  # what NumPy's parser raises
MAX_HEADER = 20_000  # bytes; NumPy itself parses no longer ones than 10,000
HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def open_arrays(path: Path, request: Request, layout: str | None = None):
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats in [0, 1] (stored as round(255 x)).

    The side with 1 or 3 entries is taken for the channels; where both sides qualify or none does, the kind must be
    given as `nchw:PATH` or `nhwc:PATH`. In an npz the images are the array `images`, `x`, `data`, `samples` or
    `arr_0`, or the only one; labels are `labels` or `y`. Arrays `x_train`, `x_test` (with `y_...`) or `train_images`,
    `test_images` (with `..._labels`) are the splits; otherwise each tenth image is held out.

    Raises:
        ValueError: the file is truncated, holds objects, or its shape, dtype or values are none of the above.
    """
    if not path.is_file():
        raise bad(path, "a .npy or .npz file", "a folder")
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic[:2] == b"PK":
        return open_npz(path, request, layout)
    if magic != b"\x93NUMPY":
        raise bad(path, "a .npy or .npz file", "neither format's first bytes")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, *BAD_HEADER) as error:
        raise bad(path, "a whole .npy file without objects", error) from error
    return take(array, None, held_out, request, path, layout)


def open_npz(path: Path, request: Request, layout):
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
            pairs = [keys for keys in SPLIT_KEYS if {keys[0], keys[1]} <= names]
            if not pairs:
                key = image_key(names, path)
                label_key = next((k for k in LABEL_KEYS if k in names and k != key), None)
                labels = read_member(archive, label_key, path) if label_key else None
                return take(read_member(archive, key, path), labels, held_out, request, f"{path}[{key}]", layout)
            train, test, *label_keys = pairs[0]
            parts = []
            for key, label_key in ((train, label_keys[0]), (test, label_keys[1])):
                if request.split in ("all", "train" if key == train else "test"):
                    labels = read_member(archive, label_key, path) if label_key in names else None
                    where = f"{path}[{key}]"
                    parts.append(take(read_member(archive, key, path), labels, everything, request, where, layout))
    except BAD_ZIP as error:
        raise bad(path, "an intact .npz archive", error) from error
    return joined(parts, request, path)


def joined(parts, request: Request, path):
    """The parts one after the other, cut to the limit."""
    if len({images.shape[1:] for images, _ in parts}) > 1:
        raise bad(path, "train and test images of one shape (give size=)", [images.shape[1:] for images, _ in parts])
    images = np.concatenate([images for images, _ in parts])[: request.limit]
    labelled = all(labels is not None for _, labels in parts)
    return images, np.concatenate([labels for _, labels in parts])[: request.limit] if labelled else None


def everything(n: int, _split: str) -> np.ndarray:
    return np.arange(n)


def image_key(names: set[str], path) -> str:
    key = next((k for k in IMAGE_KEYS if k in names), None) or (next(iter(names)) if len(names) == 1 else None)
    if key is None:
        raise bad(path, f"an array named {', '.join(IMAGE_KEYS)}, or one array only", sorted(names) or "no array")
    return key


def read_member(archive: zipfile.ZipFile, key: str, path) -> np.ndarray:
    """One array of an npz, its header checked against the member's size before the pixels are read."""
    where = f"{path}[{key}]"
    info = archive.getinfo(f"{key}.npy")
    check_bytes(info.file_size, where)
    try:
        with archive.open(info) as stream:
            head = read_up_to(stream, MAX_HEADER)
            header = BytesIO(head)
            version = np.lib.format.read_magic(header)
            shape, fortran, dtype = HEADER_READERS[min(version, (2, 0))](header)
            if dtype.hasobject:
                raise ValueError("Python objects, which would have to be unpickled")
            start, expected = header.tell(), math.prod(shape) * dtype.itemsize
            if expected != info.file_size - start:
                raise ValueError(f"{info.file_size - start} bytes for shape {shape} of {dtype}")
            body = head[start:] + read_up_to(stream, info.file_size - len(head))
        return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")
    except BAD_HEADER as error:
        raise bad(where, "a whole array without objects", error) from error


def take(array, labels, choose, request: Request, where, layout):
    """The split's images as uint8 (n, C, H, W) and its labels."""
    source = to_nchw(array, layout, where)
    if labels is not None:
        labels = np.asarray(labels)
        if labels.size != len(source) or labels.dtype.kind not in "iu":
            raise bad(where, f"{len(source)} integer labels", f"{labels.dtype} {labels.shape}")
        labels = labels.reshape(-1).astype(np.int64)
    chosen = limited(choose(len(source), request.split), request, where)
    images = gather(source, chosen, request, where, partial(to_uint8, where=where))
    return images, None if labels is None else labels[chosen]


def to_nchw(array: np.ndarray, layout: str | None, where) -> np.ndarray:
    """A view (N, C, H, W) of the array."""
    shape = array.shape
    if 0 in shape:
        raise bad(where, "at least one image", f"shape {shape}")
    if array.ndim == 3:
        return array[:, None]
    if array.ndim != 4:
        raise bad(where, "images (N, H, W), (N, H, W, C) or (N, C, H, W)", f"shape {shape}")
    if layout is None:
        first, last = shape[1] in (1, 3), shape[3] in (1, 3)
        if first == last:
            reason = "both sides could be the channels" if first else "neither side is 1 or 3 channels"
            raise bad(where, "one side of 1 or 3 channels (force it with nchw:PATH or nhwc:PATH)", f"{shape}, {reason}")
        layout = "nchw" if first else "nhwc"
    return array if layout == "nchw" else array.transpose(0, 3, 1, 2)


def to_uint8(block: np.ndarray, where) -> np.ndarray:
    """uint8 as it is; floats x in [0, 1] become floor(255 x + 1/2)."""
    if block.dtype == np.uint8:
        return block
    if block.dtype.kind != "f":
        raise bad(where, "uint8, or floats in [0, 1]", block.dtype)
    x = block.astype(np.float64)
    if not (x.min() >= 0 and x.max() <= 1):  # also true for NaN
        raise bad(where, "uint8, or floats in [0, 1]", f"floats from {x.min():g} to {x.max():g}")
    return np.floor(255 * x + 0.5).astype(np.uint8)
