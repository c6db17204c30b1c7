"""The inception score of a set of images, from the class probabilities that a network gives them."""

from typing import NamedTuple

import torch

__all__ = ["Score", "inception_score"]


class Score(NamedTuple):
    """The mean of a number over parts or subsets of the samples and its standard deviation (of the population)."""

    mean: float
    deviation: float


def inception_score(probabilities, splits=10) -> Score:
    """exp of the mean divergence of p(y|x) from its average (Salimans et al. 2016, arXiv:1606.03498, section 4).

        IS = exp(mean_x KL(p(y|x) || mean_x p(y|x)))

    Args:
        probabilities: (n, classes), rows that sum to 1.
        splits: number of consecutive parts; the mean over n is taken in each of them.

    Returns:
        Mean and standard deviation over the parts, each between 1 and the number of classes.

    Raises:
        ValueError: rows are no probabilities, or there are fewer of them than parts.
    """
    p = torch.as_tensor(probabilities, dtype=torch.float64)
    if p.dim() != 2 or p.shape[1] < 1:
        raise ValueError(f"inception_score: probabilities must be (n, classes), got {tuple(p.shape)}")
    if not 1 <= splits <= len(p):
        raise ValueError(f"inception_score: splits must be in [1, {len(p)}], the number of rows, got {splits}")
    sums = p.sum(1)
    # float32 softmax over a thousand classes is off by 1e-6 at most
    if not bool(((p >= 0).all(1) & ((sums - 1).abs() <= 1e-4)).all()):
        raise ValueError(
            f"inception_score: probabilities must be >= 0 with rows that sum to 1, got values from {p.min():.3g}"
            f" and sums from {sums.min():.6g} to {sums.max():.6g}"
        )
    scores = torch.stack([_score(part) for part in p.tensor_split(_bounds(len(p), splits))])
    return Score(scores.mean().item(), scores.std(correction=0).item())


def _bounds(n, splits):
    """Where the parts end, as in the released code: part i is [i n div splits, (i + 1) n div splits)."""
    return [i * n // splits for i in range(1, splits)]


def _score(p):
    marginal = p.mean(0)
    return (torch.xlogy(p, p) - torch.xlogy(p, marginal)).sum(1).mean().exp()
