"""Means and covariances of features in files that pytorch-fid, NCSNv2 and EDM can read and write.

    NAME.npz    mu (D,), sigma (D, D), float64: all that those packages look at
    NAME.json   the provenance: source, count, features, weights, size, the version of this package, and the sha256 of
                mu and sigma, by which the two files are known to belong together

A file from elsewhere has no JSON beside it; its count and features are then unknown.
"""

import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from .._files import atomic_path

__all__ = ["Statistics", "load_statistics", "save_statistics"]

REQUIRED = ("source", "count", "features", "weights", "size")


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean (D,) and covariance (D, D) of features, float64, and what is known of where they come from.

    Two of them are equal only if they are the same object.

    Attributes:
        mean, covariance: as named.
        provenance: dictionary with the keys of `save_statistics`, as far as they are known.
        count: the number of samples they were made from, None if unknown.
        features: the name of the features, None if unknown.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    provenance: dict = field(default_factory=dict)

    @property
    def count(self) -> int | None:
        return self.provenance.get("count")

    @property
    def features(self) -> str | None:
        return self.provenance.get("features")


def save_statistics(path, mean, covariance, provenance) -> None:
    """Writes mean and covariance as `NAME.npz` with the keys of pytorch-fid, and their provenance as `NAME.json`.

    Args:
        path: `NAME.npz`, which must not exist, nor `NAME.json`.
        mean: (D,) real; covariance: (D, D) real.
        provenance: dictionary that JSON can hold, with at least
            source: what was measured, such as "celeba:test";
            count: how many samples;
            features: the name of the features;
            weights: sha256 of the network that made them, or None;
            size: [C, H, W] of the images, or None.

    Raises:
        ValueError: the path does not end in .npz, shapes are wrong, a value is not finite, or the provenance lacks a
            key.
        TypeError: JSON cannot hold the provenance.
        FileExistsError: one of the two files exists.
        OSError: the files cannot be written.
    """
    path = _npz(path, "save_statistics")
    mean, covariance = _checked("save_statistics", mean, covariance)
    missing = [key for key in REQUIRED if key not in provenance]
    if missing:
        raise ValueError(f"save_statistics: provenance must have {', '.join(REQUIRED)}, got none of {missing}")
    for file in (path, path.with_suffix(".json")):
        if file.exists():
            raise FileExistsError(f"save_statistics: path must be a new file, got {file}, which exists")
    about = {**provenance, "version": __version__, "sha256": _sha256(mean, covariance)}
    try:
        text = json.dumps(about, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"save_statistics: provenance must fit into JSON: {error}") from error
    # The JSON first: a crash between the two then leaves no statistics that look as if they came from elsewhere.
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(text + "\n")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, mu=mean.numpy(), sigma=covariance.numpy())


def load_statistics(path) -> Statistics:
    """Reads statistics written by `save_statistics`, pytorch-fid, NCSNv2 or EDM.

    Args:
        path: `NAME.npz` with the keys mu and sigma; `NAME.json` beside it is read if it is there.

    Returns:
        Statistics; its provenance is empty for a file from elsewhere.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no finite mu (D,) and sigma (D, D), or the JSON belongs to another file.
    """
    path = _npz(path, "load_statistics")
    if not path.is_file():
        raise FileNotFoundError(f"load_statistics: path must be a file, got {path}")
    mean, covariance = _checked("load_statistics", *_arrays(path))
    beside = path.with_suffix(".json")
    if not beside.exists():
        return Statistics(mean, covariance, {})
    try:
        provenance = json.loads(beside.read_text())
        matches = provenance["sha256"] == _sha256(mean, covariance)
    except (ValueError, KeyError, TypeError, RecursionError):
        matches = False
    if not matches:
        raise ValueError(
            f"load_statistics: {beside} must be the provenance of {path.name}, got one that does not match"
        )
    return Statistics(mean, covariance, provenance)


def _arrays(path):
    """mu and sigma of an npz file."""
    from ..data.arrays import read_member
    from ..data.common import BAD_ZIP

    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name.removesuffix(".npy") for name in archive.namelist())
            if {"mu", "sigma"} <= set(names):
                return tuple(read_member(archive, name, path).copy() for name in ("mu", "sigma"))
    except (*BAD_ZIP, ValueError) as error:
        raise ValueError(f"load_statistics: {path} must be a whole npz file without objects: {error}") from error
    raise ValueError(f"load_statistics: {path} must hold mu and sigma, got {names}")


def is_statistics(path) -> bool:
    """Whether the path is an npz file with the keys of statistics."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"mu.npy", "sigma.npy"} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _npz(path, name):
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{name}: path must end in .npz, got {path}")
    return path


def _checked(name, mean, covariance):
    """Both as contiguous float64 on the CPU."""
    try:
        pair = [torch.as_tensor(value).detach().to("cpu", torch.float64).contiguous() for value in (mean, covariance)]
    except TypeError as error:
        raise ValueError(f"{name}: mean and covariance must be numbers: {error}") from error
    size = pair[0].numel()
    if size == 0 or (tuple(pair[0].shape), tuple(pair[1].shape)) != ((size,), (size, size)):
        shapes = [tuple(value.shape) for value in pair]
        raise ValueError(f"{name}: mean and covariance must be (D,) and (D, D), got {shapes[0]} and {shapes[1]}")
    if not all(bool(value.isfinite().all()) for value in pair):
        raise ValueError(f"{name}: mean and covariance must be finite, got values that are not")
    return pair


def _sha256(mean, covariance):
    digest = hashlib.sha256(mean.numpy().tobytes())
    digest.update(covariance.numpy())
    return digest.hexdigest()
