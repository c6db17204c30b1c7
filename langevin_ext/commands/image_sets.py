"""A set of images that a command compares: samples, a dataset, a folder, or statistics in the place of images."""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..data import open_dataset
from ..data.arrays import read_member
from ..data.common import BAD_ZIP
from ..data.dataset import SPLITS
from ..metrics import Statistics, load_statistics
from ..metrics.statistics import is_statistics

SAMPLES = "samples.npz"  # what `sample` writes into its folder


@dataclass(frozen=True)
class ImageSet:
    """What was opened.

    Attributes:
        source: as it was asked for, with the split.
        images: float32 as sampled or uint8, (n, C, H, W); None where only statistics are known.
        statistics: in the place of images.
        part: "train" or "test" -> all images of this part of the dataset, whatever the limit; None if it is no dataset.
        facts: for the record: the hash of the content and the like.
    """

    source: str
    images: torch.Tensor | None = None
    statistics: Statistics | None = None
    part: Callable[[str], torch.Tensor] | None = None
    facts: dict = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(C, H, W), None of statistics."""
        return None if self.images is None else tuple(self.images.shape[1:])

    def __str__(self):
        if self.images is None:
            count = "an unknown number of" if self.statistics.count is None else self.statistics.count
            return f"{self.source}: statistics of {count} samples in {self.statistics.features or 'unknown features'}"
        return f"{self.source}: {len(self.images)} images of {' x '.join(str(side) for side in self.shape)}"


def open_set(spec, size=None, channels=None, limit=None) -> ImageSet:
    """Opens what SAMPLES or REFERENCE may be.

    Args:
        spec: samples.npz of `sample` or its folder, statistics (npz with mu and sigma), or a source of `open_dataset`,
            which may end in :train, :test or :all; without it all of the source is taken.
        size, channels: of a dataset's images, see `open_dataset`.
        limit: at most this many images, the first ones.

    Raises:
        FileNotFoundError, ValueError: see `open_dataset`; or samples have another size.
    """
    source, split = _divided(str(spec))
    path = Path(source).expanduser()
    if (path / SAMPLES).is_file():
        path = path / SAMPLES
    names = _names(path)
    if split is None and is_statistics(path):
        statistics = load_statistics(path)
        return ImageSet(str(path), statistics=statistics, facts={"provenance": statistics.provenance})
    if {"images", "seed", "first"} <= names:
        if split is not None:
            raise ValueError(f"evaluate: samples must be named without a part, got {spec!r}")
        return _samples(path, size, limit)
    dataset = open_dataset(source, size, channels=channels, split=split or "all", limit=limit)
    facts = {"split": dataset.which, "fingerprint": dataset.fingerprint}

    def part(which):
        return open_dataset(source, size, channels=channels, split=which).images

    return ImageSet(f"{source}:{dataset.which}", dataset.images, part=part, facts=facts)


def _divided(spec):
    """("digits", "test") of "digits:test"; None for no split."""
    source, colon, split = spec.rpartition(":")
    return (source, split) if colon and split in SPLITS else (spec, None)


def _names(path):
    """The arrays of an npz file; none of anything else."""
    if path.suffix != ".npz" or not path.is_file():
        return set()
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except zipfile.BadZipFile:
        return set()  # open_dataset says what is wrong with it


def _samples(path, size, limit):
    """Images as they were sampled: float32, also outside [0, 1]."""
    try:
        with zipfile.ZipFile(path) as archive:
            images = torch.from_numpy(read_member(archive, "images", path).copy())
    except (*BAD_ZIP, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"evaluate: {path} must be a whole file of samples: {error}") from error
    if images.dim() != 4 or not images.is_floating_point():
        got = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"evaluate: {path} must hold float images (n, C, H, W), got {got}")
    if size is not None and tuple(images.shape[2:]) != size:
        raise ValueError(f"--size must be that of the samples, {images.shape[2]}x{images.shape[3]}, got {size}")
    facts = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return ImageSet(str(path), images[:limit], facts=facts)
