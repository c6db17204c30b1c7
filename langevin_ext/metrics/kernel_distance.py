"""The kernel distance between two sets of features, whose expectation does not depend on the number of samples."""

import torch
from tqdm import tqdm

from .inception_score import Score
from .resampling import subset

__all__ = ["kid"]


def kid(features_a, features_b, subsets=100, subset_size=None, seed=0) -> Score:
    """Kernel (inception) distance: unbiased squared MMD with a cubic kernel (Binkowski et al. 2018, arXiv:1801.01401).

        k(x, y) = (x . y / D + 1)^3
        MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

    It is negative about as often as positive for two sets of one law.

    Args:
        features_a, features_b: (n, D) real.
        subsets: how many pairs of random subsets to average over, at least 1.
        subset_size: rows of each subset, different ones, at least 2; by default 1000, or all rows of the smaller set.
        seed: integer in [0, 2^64).

    Returns:
        Mean and standard deviation over the subsets. Subset k depends on (seed, k) and the numbers of rows alone.

    Raises:
        ValueError: shapes differ, a value is not finite, or subsets or subset_size is out of range.
    """
    a, b = (torch.as_tensor(rows).to(torch.float64) for rows in (features_a, features_b))
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or a.shape[1] < 1:
        raise ValueError(f"kid: features must be (n, D) and (m, D), got {tuple(a.shape)} and {tuple(b.shape)}")
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise ValueError("kid: features must be finite, got values that are not")
    fewest = min(len(a), len(b))
    size = min(1000, fewest) if subset_size is None else subset_size
    if not 2 <= size <= fewest:
        raise ValueError(f"kid: subset_size must be in [2, {fewest}], the rows of the smaller set, got {size}")
    if subsets < 1:
        raise ValueError(f"kid: subsets must be at least 1, got {subsets}")
    values = torch.empty(subsets, dtype=torch.float64)
    for k in tqdm(range(subsets), desc="kernel distance", disable=None, leave=False):
        x, y = (rows[subset(len(rows), size, seed=seed, step=k, which=i)] for i, rows in enumerate((a, b)))
        values[k] = _squared_mmd(x, y)
    return Score(values.mean().item(), values.std(correction=0).item())


def _squared_mmd(x, y):
    m = len(x)
    within = [kernel.sum() - kernel.trace() for kernel in (_kernel(x, x), _kernel(y, y))]
    return (within[0] + within[1]) / (m * (m - 1)) - 2.0 * _kernel(x, y).mean()


def _kernel(x, y):
    return (x @ y.T / x.shape[1] + 1.0) ** 3
