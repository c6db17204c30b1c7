"""Vectors as training data: toy distributions in the plane, and .npy files of shape (N, D)."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from .. import noise
from .arrays import BAD_HEADER
from .common import Request, bad, check_bytes, held_out, limited
from .dataset import Dataset

SEED = 0x766563746F72  # "vector"
N_TRAIN, N_TEST = 50_000, 10_000
CENTRE, SHARE = 5.0, 0.8  # of the mixture
RING_NOISE, ROLL_SCALE = 0.08, 5.0


class VectorDataset(Dataset):
    """Vectors as float32 (N, D, 1, 1) in memory, used as they are: neither scaled nor dequantised.

    Attributes:
        vectors: float32 tensor (N, D, 1, 1).
        labels, shape, name, which, fingerprint: as of `ImageDataset`; the shape is (D, 1, 1).
    """

    flips, content = False, "vectors"

    def __init__(self, vectors, labels=None, *, name="vectors", which="all", reopen=None):
        if not torch.is_tensor(vectors) or vectors.dtype != torch.float32 or vectors.dim() != 4:
            got = f"{vectors.dtype} {tuple(vectors.shape)}" if torch.is_tensor(vectors) else type(vectors).__name__
            raise TypeError(f"VectorDataset: vectors must be a float32 tensor (N, D, 1, 1), got {got}")
        if 0 in vectors.shape or vectors.shape[2:] != (1, 1) or not vectors.isfinite().all():
            raise ValueError(
                f"VectorDataset: vectors must be finite numbers (N, D, 1, 1), at least one, got {tuple(vectors.shape)}"
            )
        self.vectors = vectors.contiguous()
        super().__init__(self.vectors, labels, name, which, reopen)

    @property
    def images(self):
        """Raises ValueError, for what needs images."""
        raise ValueError(f"{self.name}: expected images, got vectors of length {self.shape[0]}, which only train takes")

    def batch(self, indices, *, seed=0, step=0, first=0, flip=False, dequantise=True) -> torch.Tensor:
        """The vectors of the indices (B, D, 1, 1); the other arguments are those of images and change nothing.

        Raises:
            IndexError, TypeError: see `ImageDataset.batch`.
            ValueError: flip is True.
        """
        if flip:
            raise ValueError("batch: flip must be False for vectors, got True")
        return self.vectors[self._checked(indices)]


def _mixture(u, z):
    """0.2 N((-5, -5), I) + 0.8 N((5, 5), I), Figures 2 and 3 of NCSN (arXiv:1907.05600); the label 1 is (5, 5)."""
    label = (u[:, 0] < SHARE).long()
    return CENTRE * (2 * label[:, None] - 1) + z, label


def _checkerboard(u, z):
    """Uniform on every second square of side 2 in [-4, 4]^2 (Grathwohl et al. 2019, arXiv:1810.01367, Figure 2)."""
    column = (4 * u[:, 0]).floor()
    row = 2 * (2 * u[:, 1]).floor() + column % 2
    corner = torch.stack([column, row], dim=1)
    return 2 * (corner + u[:, 2:]) - 4, (2 * column + row // 2).long()


def _swiss_roll(u, z):
    """(r cos r, r sin r) / 5 plus N(0, I) / 25, r uniform on [1.5 pi, 4.5 pi]: scikit-learn's roll in the plane."""
    r = 1.5 * math.pi * (1 + 2 * u[:, :1])
    return (torch.cat([r * r.cos(), r * r.sin()], dim=1) + z) / ROLL_SCALE, None


def _rings(u, z):
    """Four circles of radii 0.75, 1.5, 2.25 and 3 about 0, equally likely, plus N(0, 0.08^2 I)."""
    label, angle = (4 * u[:, 0]).long(), 2 * math.pi * u[:, 1:2]
    circle = torch.cat([angle.cos(), angle.sin()], dim=1)
    return 0.75 * (label[:, None] + 1) * circle + RING_NOISE * z, label


PLANE: dict[str, Callable] = {
    "mixture2d": _mixture,
    "checkerboard": _checkerboard,
    "swiss-roll": _swiss_roll,
    "rings": _rings,
}


def draw(name, n, *, seed, first=0, step=0):
    """Points of a distribution of PLANE, computed in float64 from four uniform and two normal numbers each.

    Args:
        name: "mixture2d", "checkerboard", "swiss-roll" or "rings".
        n: number of points.
        seed, first, step: coordinates of the noise; point i depends on (seed, step, first + i) alone (stream DATA).

    Returns:
        (float32 (n, 2, 1, 1), labels int64 (n,) or None).

    Raises:
        ValueError: the name is unknown.
    """
    if name not in PLANE:
        raise ValueError(f"draw: name must be one of {', '.join(PLANE)}, got {name!r}")
    place = {"seed": seed, "first": first, "stream": noise.DATA}
    u = noise.uniform((n, 4), step=2 * step, **place).double()
    z = noise.normal((n, 2), step=2 * step + 1, **place).double()
    points, labels = PLANE[name](u, z)
    return points.float()[:, :, None, None], labels


def open_plane(name, count, request: Request):
    """A distribution of PLANE: `NAME` holds 50,000 training and 10,000 test points, `NAME:N` N training ones.

    Training and test points use different Philox steps.

    Raises:
        ValueError: the count is no positive integer, or a size or a number of channels is asked for.
    """
    n_train = N_TRAIN if not count else int(count) if count.isdecimal() else 0
    if n_train < 1:
        raise bad(name, f"{name} or {name}:N with N at least 1", f"{name}:{count}")
    _no_images(request, name)
    check_bytes(8 * n_train, name)
    parts = {"train": [(0, n_train)], "test": [(1, N_TEST)], "all": [(0, n_train), (1, N_TEST)]}[request.split]
    drawn = [draw(name, n, seed=SEED, step=step) for step, n in parts]
    vectors = torch.cat([points for points, _ in drawn])[: request.limit]
    labels = None if drawn[0][1] is None else torch.cat([labels for _, labels in drawn])[: request.limit].numpy()
    return vectors.numpy(), labels


def is_vectors(path: Path) -> bool:
    """Whether a file is a whole .npy of floats (N, D); what else may be wrong with a .npy, `open_arrays` says."""
    if not path.is_file() or path.suffix.lower() != ".npy":
        return False
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, *BAD_HEADER):
        return False
    return array.ndim == 2 and array.dtype.kind == "f"


def open_vectors(path: Path, request: Request):
    """Vectors (N, D) of a .npy file of floats, taken as float32; each tenth one is held out.

    Raises:
        ValueError: the file is no whole .npy of floats (N, D), empty or not finite, or an image size is asked for.
    """
    if not is_vectors(path):
        raise bad(path, "a whole .npy file of floats (N, D)", "something else")
    _no_images(request, path)
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if 0 in array.shape:
        raise bad(path, "at least one number", f"shape {array.shape}")
    check_bytes(4 * array.size, path)
    chosen = limited(held_out(len(array), request.split), request, path)
    vectors = np.asarray(array[chosen], np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise bad(path, "finite numbers", f"others in row {chosen[~finite][0]}")
    return vectors[:, :, None, None], None


def _no_images(request: Request, where):
    if request.size is not None or request.channels is not None:
        raise bad(where, "no size and no channels, which vectors do not have", (request.size, request.channels))


OPENERS = {name: partial(open_plane, name) for name in PLANE}
