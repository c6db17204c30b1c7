"""Opening a dataset by its spec: the table of sources, the detection of a path's kind, and the checks of arguments."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from .arrays import open_arrays
from .celeba import open_celeba
from .cifar import is_cifar10, open_cifar10
from .common import Request, bad
from .dataset import SPLITS, Dataset, ImageDataset
from .digits import open_digits
from .folder import open_folder
from .glyphs import open_glyphs
from .mnist import is_mnist, open_mnist
from .vectors import OPENERS, VectorDataset, is_vectors, open_vectors


@dataclass(frozen=True)
class Source:
    """One kind of source.

    `open(path, request)` returns uint8 (N, C, H, W), or float32 (N, D, 1, 1) for vectors, and int64 (N,) labels or
    None; `detects(path)` says whether an existing path without a prefix is of this kind; a built-in source has no path.
    """

    open: Callable
    detects: Callable[[Path], bool] = lambda path: False
    builtin: bool = False


def has_suffix(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and path.suffix.lower() in suffixes


# Every kind `kind:PATH`; without the prefix the first whose `detects` is true opens the path.
SOURCES = {
    "digits": Source(open_digits, builtin=True),
    "glyphs": Source(open_glyphs, builtin=True),
    **{name: Source(opener, builtin=True) for name, opener in OPENERS.items()},
    "vectors": Source(open_vectors, is_vectors),
    "mnist": Source(open_mnist, is_mnist),
    "cifar10": Source(open_cifar10, is_cifar10),
    "npy": Source(open_arrays, has_suffix(".npy")),
    "npz": Source(open_arrays, has_suffix(".npz")),
    "nchw": Source(partial(open_arrays, layout="nchw")),
    "nhwc": Source(partial(open_arrays, layout="nhwc")),
    "zip": Source(open_folder, has_suffix(".zip")),
    "folder": Source(open_folder, Path.is_dir),
    "celeba": Source(open_celeba),
}
BUILTIN = tuple(kind for kind, source in SOURCES.items() if source.builtin)


def open_dataset(spec, size=None, *, channels=None, split="train", limit=None) -> Dataset:
    """Opens a source of images, or of vectors, by its spec.

    Args:
        spec: `digits`; `glyphs` or `glyphs:N`; or the path of an image folder or zip, a .npy or .npz file, a folder or
            file of MNIST's idx format, or a folder or tar.gz of CIFAR-10's binary version. The kind of a path is
            detected; `kind:PATH` with a kind of SOURCES forces it, and `celeba:PATH` opens CelebA, which is not
            detected. Vectors are `mixture2d`, `checkerboard`, `swiss-roll` and `rings`, each also with `:N`, and .npy
            files of shape (N, D).
        size: side, or (height, width); pictures are cut to its aspect ratio and resized. None keeps the source's
            size (glyphs 32, CelebA 64).
        channels: 1 (grey) or 3 (colour); None keeps the source's.
        split: "train", "test" or "all"; `ImageDataset.split` says what they are.
        limit: at most this many images, the first of the split.

    Returns:
        ImageDataset, or VectorDataset for vectors. The same spec and options give the same samples in the same order on
        every machine.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: an argument is out of range, or the source is empty, broken, too large or of no known kind.
        ModuleNotFoundError: scikit-learn is missing for `digits`.
    """
    size = checked_size(size)
    if channels not in (None, 1, 3):
        raise ValueError(f"open_dataset: channels must be 1 or 3, got {channels!r}")
    if split not in SPLITS:
        raise ValueError(f"open_dataset: split must be one of {', '.join(SPLITS)}, got {split!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"open_dataset: limit must be at least 1, got {limit!r}")
    kind, target = parse(spec)
    images, labels = SOURCES[kind].open(target, Request(size, channels, split, limit))
    labels = None if labels is None else torch.from_numpy(labels)
    name = ":".join(filter(None, (kind, target if isinstance(target, str) else target.resolve().name)))

    def reopen(which):
        return open_dataset(spec, size, channels=channels, split=which, limit=limit)

    kept = ImageDataset if images.dtype == np.uint8 else VectorDataset
    return kept(torch.from_numpy(images), labels, name=name, which=split, reopen=reopen)


def checked_size(size) -> tuple[int, int] | None:
    """(height, width) from None, an integer or a pair."""
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(isinstance(side, int) and side >= 1 for side in pair):
        raise ValueError(f"open_dataset: size must be a positive integer or (height, width), got {size!r}")
    return pair


def parse(spec) -> tuple[str, Path | str]:
    """(kind, path), or (kind, text after the colon) for a built-in source."""
    if not isinstance(spec, (str, os.PathLike)):
        raise TypeError(f"open_dataset: spec must be a string or a path, got {type(spec).__name__}")
    kind, colon, rest = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    if kind in BUILTIN:
        return kind, rest
    forced = kind if colon and kind in SOURCES else None
    path = Path(rest if forced else spec).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"open_dataset: {path}: expected {', '.join(BUILTIN)} or an existing path (kinds: {', '.join(SOURCES)}), "
            "got no such file or folder"
        )
    if forced:
        return forced, path
    for name, source in SOURCES.items():
        if source.detects(path):
            return name, path
    kinds = "a folder or zip of pictures, a .npy, .npz or idx file, or a tar of CIFAR-10 (kind:PATH forces a kind)"
    raise bad(path, kinds, f"a file {path.suffix or 'without suffix'}")
