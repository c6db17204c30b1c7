"""Consistent annealed sampling (Jolicoeur-Martineau, Piche-Taillefer, Tachet des Combes, Mitliagkas 2020,
arXiv:2009.05475, Algorithm 2)."""

import math

from .langevin import denoising
from .measurement import Measure
from .table import Row, Run


def consistent(ladders, *, denoise, eta=None) -> list:
    """Consistent annealed sampling: one update per level, after which the noise is exactly that of the next level.

        x = x_0 + sigma_1 z
        for i in 1 ... L:
            x = x + eta sigma_i^2 score(x, i)
            x = x + sigma_{i+1} sqrt(1 - ((1 - eta) / g)^2) z          if i < L;  g = sigma_{i+1} / sigma_i, constant

    For data without width and x_0 among them, the noise left after update i has the standard deviation sigma_{i+1}, and
    after the last |1 - eta| sigma_L. The released code leaves out the first line, so that its first levels have less
    noise than they say.

    Args:
        ladders: sigmas of each model, coarsest first; the last is run. Their ratio must be constant (within 1 %).
        denoise: make the last update with eta = 1, which gives the mean of the clean image.
        eta: step size / sigma_L^2, in [1 - g, 1 + g]; the lower end has no noise. By default 1 - g^2, with which this
            is ancestral sampling of the variance-exploding process (arXiv:2011.13456, appendix F).

    Returns:
        the stages.
    """
    sigmas = ladders[-1]
    g = _ratio(sigmas)
    eta = 1 - g**2 if eta is None else eta
    if isinstance(eta, bool) or not isinstance(eta, int | float) or not 1 - g <= eta <= 1 + g:
        raise ValueError(
            f"consistent: option eta must be a number in [1 - g, 1 + g] = [{1 - g:g}, {1 + g:g}], got {eta!r}"
        )
    beta = math.sqrt(max(0.0, 1 - ((1 - eta) / g) ** 2))
    rows = [
        Row(i, sigma, eta * sigma**2, beta * after, i, ends_level=True)
        for i, (sigma, after) in enumerate(zip(sigmas, [*sigmas[1:], 0.0], strict=True))
    ]
    if denoise:
        rows[-1] = denoising(len(sigmas) - 1, sigmas[-1], len(rows) - 1)._replace(ends_level=True)
    model = len(ladders) - 1
    return [Measure(model, sigmas[0]), Run(model, tuple(rows), note=f"consistent annealed sampling with eta {eta:g}")]


def _ratio(sigmas) -> float:
    """sigma_{i+1} / sigma_i."""
    if len(sigmas) < 2:
        raise ValueError(f"consistent: argument model must have at least two noise levels, got {len(sigmas)}")
    ratios = [low / high for high, low in zip(sigmas, sigmas[1:], strict=False)]
    g = (sigmas[-1] / sigmas[0]) ** (1 / (len(sigmas) - 1))
    if max(abs(ratio / g - 1) for ratio in ratios) > 0.01:
        raise ValueError(
            f"consistent: argument model must have noise levels of a constant ratio, got ratios from {min(ratios):g} "
            f"to {max(ratios):g}; geometric_sigmas makes such levels"
        )
    return g
