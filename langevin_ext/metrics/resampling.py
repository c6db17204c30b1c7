"""Random subsets and resamples of rows as a pure function of a seed, and the bootstrap made of them."""

import warnings
from typing import NamedTuple

import torch
from tqdm import tqdm

from .. import noise
from .frechet import FewSamplesWarning

__all__ = ["Bootstrap", "bootstrap", "resample", "subset"]


class Bootstrap(NamedTuple):
    """A value and the standard deviation of its bootstrap replicates."""

    value: float
    deviation: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of a normal law around the value."""
        return self.value - 1.96 * self.deviation, self.value + 1.96 * self.deviation


def subset(n, size, *, seed, step, which) -> torch.Tensor:
    """`size` different indices below n, int64; they depend on (n, seed, step, which) alone, and `size` only cuts them.

    indices = argsort(words(n, seed, step, sample = which))[:size]
    """
    words = noise.words((1, n), seed, step=step, first=which, stream=noise.RESAMPLE)[0]
    return torch.argsort(words, stable=True)[:size]


def resample(n, *, seed, step, which) -> torch.Tensor:
    """n indices below n, drawn independently, int64; they depend on (n, seed, step, which) alone.

    indices = n words(n, seed, step, sample = which) div 2^32
    """
    return noise.words((1, n), seed, step=step, first=which, stream=noise.RESAMPLE)[0] * n >> 32


def bootstrap(metric, a_features, b_features, n=200, seed=0, *, which="both") -> Bootstrap:
    """The spread of a distance between two sets, from sets of rows drawn with replacement (Efron 1979).

    Replicates of a Frechet distance are larger than the value itself, since a resample has fewer different rows; only
    their spread is meant. They say nothing about the bias of the value, which equal sample counts cancel.

    Args:
        metric: (a, b) -> number, such as `frechet_samples`.
        a_features, b_features: (rows, D) features, computed once; rows are images.
        n: number of replicates, at least 2.
        seed: integer in [0, 2^64).
        which: "both" sets are drawn anew, or only "a": the spread for this very reference. b may then be anything that
            `metric` takes, `Statistics` for example.

    Returns:
        The metric of the sets as they are, and the standard deviation of its replicates; the randomness depends on
        (seed, replicate, set, row) alone.

    Raises:
        ValueError: n or `which` is out of range, or a set to be drawn from is empty.
    """
    if n < 2:
        raise ValueError(f"bootstrap: n must be at least 2, got {n}")
    if which not in ("both", "a"):
        raise ValueError(f"bootstrap: which must be 'both' or 'a', got {which!r}")
    if len(a_features) == 0 or (which == "both" and len(b_features) == 0):
        raise ValueError("bootstrap: features must have at least one row, got none")
    value = float(metric(a_features, b_features))
    replicates = torch.empty(n, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewSamplesWarning)  # the value has said so already
        for step in tqdm(range(n), desc="bootstrap", disable=None, leave=False):
            a = a_features[resample(len(a_features), seed=seed, step=step, which=0)]
            b = b_features if which == "a" else b_features[resample(len(b_features), seed=seed, step=step, which=1)]
            replicates[step] = metric(a, b)
    return Bootstrap(value, replicates.std().item())
