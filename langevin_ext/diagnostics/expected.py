"""What the norm of x and the losses should be, from the mean and the covariance of the data."""

from dataclasses import dataclass

import torch

from ..samplers.table import DENOISE
from ..tuning.fit import fit
from ..tuning.law import Law, effect
from ..tuning.modes import GaussianData
from .estimate import Estimate, estimate

__all__ = ["Expected", "discretisation"]

IMAGES = 2048  # at most this many for the covariance


@dataclass(frozen=True)
class Expected:
    """Predictions for the levels of a ladder.

    Attributes:
        centre: mean of the data (C, H, W), float64.
        spread: E|x0 - m|^2 / D of the data.
        gaussian: the data's moments, `tuning.GaussianData`.
    """

    centre: torch.Tensor
    spread: Estimate
    gaussian: GaussianData

    @classmethod
    def of(cls, images) -> "Expected":
        """From float images (N, C, H, W)."""
        images = images[:IMAGES].to("cpu", torch.float64)
        centre = images.mean(0)
        squares = (images - centre).square().flatten(1).mean(1)
        return cls(centre, estimate(squares), fit(images, [tuple(images.shape[1:])])[0])

    def norm(self, sigma) -> Estimate:
        """E|x - m|^2 / D = E|x0 - m|^2 / D + sigma^2 under q_sigma, the data plus noise."""
        return Estimate(self.spread.value + sigma**2, self.spread.stderr)

    def gaussian_loss(self, sigma) -> float:
        """1/2 tr(C (C + sigma^2 I)^-1): the smallest DSM loss of a score that is linear in x."""
        spectrum = self.gaussian.spectrum
        return 0.5 * (spectrum / (spectrum + sigma**2)).sum().item()

    def norms_of_sampler(self, stages, init) -> list[float]:
        """E|x - m|^2 / D after each level of a run, exact for Gaussian data of the same mean and covariance.

        Args:
            stages: of `plan`, one run at one resolution.
            init: "uniform" or "normal".
        """
        law, found = Law.initial(self.gaussian, init), []
        rows: list = []
        for row in (row for stage in stages for row in stage.rows if row.kind != DENOISE):
            rows.append(row)
            if row.ends_level:
                law, rows = law.moved(*effect(rows, self.gaussian.spectrum)), []
                apart = (law.mean - self.gaussian.mean[law.blocks]).square().sum()
                found.append(((apart + law.variances.sum()) / self.centre.numel()).item())
        return found


def discretisation(alpha, sigma) -> float:
    """By how much steps of size alpha may raise E|x - m|^2 / (sigma^2 D) above that of q_sigma, the score being exact.

        (alpha/4) / (1 - alpha / (4 sigma^2)) / sigma^2

    Langevin dynamics on N(m, S) has the variance S / (1 - alpha / (4 S)), which exceeds S by (alpha/4) / (1 - alpha /
    (4 S)); that is largest for data in one point, S = sigma^2.
    """
    return alpha / 4 / (1 - alpha / (4 * sigma**2)) / sigma**2
