"""Exact scores of mixtures of Gaussians."""

import math

import torch

from .. import noise
from .field import Field

__all__ = ["GaussianMixture"]


class GaussianMixture(Field):
    """The exact score of a mixture of Gaussians with one variance, isotropic.

        s(x, sigma) = sum_k p_k(x) (m_k - x) / v,     p_k(x) proportional to w_k exp(-|x - m_k|^2 / (2 v))

    form="convolved": v = variance + sigma^2, the score of data plus noise. form="replaced": v = sigma^2, what the toy
    experiment released with NCSN (arXiv:1907.05600, figure 3) does: the components' width is the noise level itself.

    Args:
        means: (K, D) or (K, C, H, W).
        weights: (K,), positive; normalised.
        variance: of a component, at least 0.
        sigmas: (L,) strictly decreasing, kept in their dtype; 1 to 0.01 in ten levels by default.
        form: "convolved" or "replaced".
        shape: (C, H, W); taken from `means` by default.
    """

    def __init__(self, means, weights, variance=1.0, sigmas=None, *, form="convolved", shape=None):
        means = torch.as_tensor(means, dtype=torch.float64)
        weights = torch.as_tensor(weights, dtype=torch.float64)
        if means.dim() not in (2, 4) or weights.shape != means.shape[:1] or not (weights > 0).all():
            raise ValueError(
                "GaussianMixture: argument means must be (K, D) or (K, C, H, W) with K positive weights, "
                f"got shapes {tuple(means.shape)} and {tuple(weights.shape)}"
            )
        if form not in ("convolved", "replaced"):
            raise ValueError(f"GaussianMixture: argument form must be 'convolved' or 'replaced', got {form!r}")
        if not 0 <= variance < math.inf:
            raise ValueError(f"GaussianMixture: argument variance must be at least 0, got {variance}")
        super().__init__(sigmas, shape or (means.shape[1:] if means.dim() == 4 else (means.shape[1], 1, 1)))
        self.form = form
        self._constants["means"] = means.reshape(len(means), *self.shape)
        self._constants["weights"] = weights / weights.sum()
        self._constants["variance"] = torch.tensor(float(variance), dtype=torch.float64)

    def _score(self, x, sigma, constants):
        v = sigma**2 + constants["variance"] if self.form == "convolved" else sigma**2
        offsets = [mean - x for mean in constants["means"]]
        distances = torch.stack([offset.square().flatten(1).sum(1) for offset in offsets], dim=1)
        p = torch.softmax(constants["weights"].log() - distances / (2 * v.reshape(-1, 1)), dim=1)
        pulls = [p[:, k].reshape(-1, 1, 1, 1) * offset for k, offset in enumerate(offsets)]
        return sum(pulls[1:], pulls[0]) / v

    def sample(self, n, seed=0, first=0, dtype=torch.float32) -> torch.Tensor:
        """n draws from the mixture: (n, C, H, W); draw i depends on (seed, first + i) alone."""
        u = noise.uniform((n, 1), seed, step=1, first=first, stream=noise.DATA).to(torch.float64)
        component = (u > self._constants["weights"].cumsum(0)[:-1]).sum(1)
        z = noise.normal((n, *self.shape), seed, first=first, stream=noise.DATA).to(torch.float64)
        return (self._constants["means"][component] + self._constants["variance"].sqrt() * z).to(dtype)
