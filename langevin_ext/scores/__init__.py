"""Score fields: the gradient of log p_sigma, p_sigma the data's law convolved with N(0, sigma^2 I).

A field has `sigmas` (L,) strictly decreasing, `shape` (C, H, W), `field(x, level)` with level int64 (B,), and
`field.at_sigma(x, sigma)`. The exact fields here compute in float64, one sample at a time as far as rounding goes, so
that a sample's bits do not depend on the batch it is in; they return x.dtype. Vectors are images of shape (D, 1, 1).
`AdversarialBall`, `MemorisedBalls` and `Cone` are estimates with an error, without a noise level; see `adversarial`.
"""

from .adversarial import AdversarialBall, Cone, MemorisedBalls
from .critical import CriticalGaussian, CriticalMixture
from .empirical import Empirical
from .field import ScoreFunction
from .gaussian import Gaussian, GaussianField
from .mixture import GaussianMixture

__all__ = [
    "AdversarialBall",
    "Cone",
    "CriticalGaussian",
    "CriticalMixture",
    "Empirical",
    "Gaussian",
    "GaussianField",
    "GaussianMixture",
    "MemorisedBalls",
    "ScoreFunction",
]
