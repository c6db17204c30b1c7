"""The exact law of Langevin schemes on Gaussian data.

With the score of N(m, C) at noise level sigma, s(x) = -(C + sigma^2 I)^-1 (x - m), a row of a scheme is a linear map,

    x <- x + c s(x) + b z:     x - m <- a (x - m) + b z,     a = 1 - c / (lambda + sigma^2)

for each mode, lambda its variance. T equal rows multiply x - m by a^T, the covariance of modes i and j by a_i^T a_j^T,
and add b^2 (1 - a^(2T)) / (1 - a^2) to the variance of each. Upsampling is a matrix U: mean to U mean, covariance V to
U V U'. Hence mean and covariance of any scheme, whatever its rows, without a sample: float64, no step repeated.
"""

import itertools
from dataclasses import dataclass

import torch

from ..samplers.table import Upsample
from .modes import GaussianData

INITS = {"uniform": (0.5, 1 / 12), "normal": (0.0, 1.0)}  # mean and variance of a pixel
NEGLIGIBLE = 1e-8  # correlation below which a mode counts as uncorrelated: its square is below rounding


@dataclass(frozen=True, eq=False)
class Law:
    """Mean and covariance of the state of a scheme, in the modes of the data at its resolution.

    Attributes:
        data: the data at this resolution.
        blocks: (number, b) indices of modes; modes of different blocks are uncorrelated.
        mean: (number, b).
        covariance: (number, b, b), or (number, b) variances as long as the modes are uncorrelated.
    """

    data: GaussianData
    blocks: torch.Tensor
    mean: torch.Tensor
    covariance: torch.Tensor

    @classmethod
    def initial(cls, data, init="uniform") -> "Law":
        """Independent pixels, uniform on (0, 1) or standard normal."""
        if not isinstance(init, str) or init not in INITS:
            raise ValueError(f"tune: argument init must be one of {', '.join(INITS)}, got {init!r}")
        mean, variance = INITS[init]
        image = data.analyse(torch.full((len(data.spectrum),), mean, dtype=torch.float64))
        return cls(data, data.blocks, image[data.blocks], torch.full(data.blocks.shape, variance, dtype=torch.float64))

    @property
    def variances(self) -> torch.Tensor:
        """(number, b) variance of each mode."""
        return self.covariance if self.covariance.dim() == 2 else self.covariance.diagonal(dim1=1, dim2=2)

    def moved(self, decay, noise) -> "Law":
        """The law after x - m <- decay (x - m) + sqrt(noise) z for each mode; decay, noise (D,)."""
        m, decay, noise = self.data.mean[self.blocks], decay[self.blocks], noise[self.blocks]
        mean = m + decay * (self.mean - m)
        if self.covariance.dim() == 2:
            return Law(self.data, self.blocks, mean, decay**2 * self.covariance + noise)
        covariance = decay[:, :, None] * self.covariance * decay[:, None, :]
        covariance.diagonal(dim1=1, dim2=2).add_(noise)
        return Law(self.data, self.blocks, mean, covariance)

    def noised(self, sigma) -> "Law":
        """The law of x + sigma z."""
        one = torch.ones_like(self.data.spectrum)
        return self if sigma == 0 else self.moved(one, sigma**2 * one)

    def upsampled(self, high, upsample, *, correlated=True) -> "Law":
        """The law of the upsampled image; correlated=False keeps the variances of its modes alone, which is fast."""
        blocks, matrix = self.data.coupling(high, upsample).at(self.blocks)
        mean = (matrix @ self.mean[:, :, None])[:, :, 0]
        spread = matrix * self.covariance[:, None, :] if self.covariance.dim() == 2 else matrix @ self.covariance
        return Law(high, blocks, mean, spread @ matrix.mT if correlated else (spread * matrix).sum(-1))

    def pixels(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean (C, H, W) and covariance (D, D) of the pixels."""
        size = len(self.data.spectrum)
        mean, whole = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
        full = self.covariance if self.covariance.dim() == 3 else torch.diag_embed(self.covariance)
        mean[self.blocks] = self.mean
        whole[self.blocks[:, :, None], self.blocks[:, None, :]] = full
        covariance = self.data.synthesise(self.data.synthesise(whole).T)
        return self.data.synthesise(mean).reshape(self.data.shape), covariance

    def frechet(self) -> float:
        """Frechet distance of the pixels to the data at this resolution (arXiv:1706.08500, equation 6), squared."""
        spectrum, variances = self.data.spectrum[self.blocks], self.variances
        offset = (self.mean - self.data.mean[self.blocks]).square().sum()
        if self.covariance.dim() == 2:
            return (offset + (spectrum.sqrt() - variances.sqrt()).square().sum()).item()
        cross = torch.zeros((), dtype=torch.float64)
        for block in range(len(spectrum)) if len(spectrum) == 1 else ():
            cross = _cross(spectrum[block], self.covariance[block])
        if len(spectrum) > 1:
            cross = _fidelities(spectrum, self.covariance).sum()
        distance = offset + spectrum.sum() + variances.sum() - 2 * cross
        return max(distance.item(), 0.0)


def _cross(spectrum, covariance):
    """tr (L V)^(1/2), L diagonal: the modes of V that are correlated with none contribute sqrt(lambda v) each."""
    variances = covariance.diagonal()
    scale = variances.clamp(min=torch.finfo(torch.float64).tiny).rsqrt()
    correlation = (covariance * scale[:, None] * scale).abs()
    correlation.fill_diagonal_(0)
    coupled = correlation.amax(1) > NEGLIGIBLE
    total = (spectrum * variances)[~coupled].sqrt().sum()
    part = covariance[coupled][:, coupled]
    return total + _fidelities(spectrum[coupled][None], part[None]).sum()


def _fidelities(spectrum, covariance):
    """tr (L^(1/2) V L^(1/2))^(1/2) of each block."""
    root = spectrum.sqrt()
    values = torch.linalg.eigvalsh(root[:, :, None] * covariance * root[:, None, :])
    return values.clamp(min=0).sqrt().sum(1)


def effect(rows, spectrum) -> tuple[torch.Tensor, torch.Tensor]:
    """What rows do to each mode: x - m <- decay (x - m) + sqrt(noise) z.

    Args:
        rows: of one model; runs of equal ones are taken in one go.
        spectrum: (D,).

    Returns:
        decay, noise: (D,).
    """
    decay, noise = torch.ones_like(spectrum), torch.zeros_like(spectrum)
    for (sigma, score_coef, noise_coef, paste), equal in itertools.groupby(
        rows, key=lambda row: (row.sigma, row.score_coef, row.noise_coef, row.paste)
    ):
        if paste:
            raise ValueError("tune: stages must be those of a run without known pixels, got a row that sets them")
        times = sum(1 for _ in equal)
        ratio = score_coef / (spectrum + sigma**2)
        a = 1 - ratio
        lost = ratio * (2 - ratio)  # 1 - a^2, without cancellation
        grown = torch.where(lost == 0, float(times), -torch.expm1(2 * times * a.abs().log()) / lost)
        decay, noise = a**times * decay, a ** (2 * times) * noise + noise_coef**2 * grown
    return decay, noise


def evolve(stages, data, *, init="uniform", upsample="bicubic") -> Law:
    """The exact law of a scheme on Gaussian data, mean and covariance.

    Args:
        stages: `plan(...).stages`, or any list of `Run` and `Upsample` (multi-scale Langevin: arXiv:2006.11166,
            Algorithm 2; without known pixels).
        data: `GaussianData` of each model, coarsest first.
        init: "uniform" or "normal".
        upsample: "bicubic", "bicubic-pil", "bilinear" or "nearest".

    Returns:
        `Law` at the resolution of the samples: frechet() to the data, pixels() for mean and covariance.

    Raises:
        ValueError: stages are empty or set known pixels, or an argument is none of the above.
    """
    if not stages:
        raise ValueError("tune: stages must hold at least one, got none")
    first = stages[0].model - isinstance(stages[0], Upsample)
    law = Law.initial(data[first], init)
    for stage in stages:
        if isinstance(stage, Upsample):
            law = law.upsampled(data[stage.model], upsample).noised(stage.sigma)
        else:
            law = law.moved(*effect(stage.rows, law.data.spectrum))
    return law
