"""How far samples are from data."""

from .energy_distance import energy_distance
from .features import ClassifierFeatures
from .frechet import (
    FewSamplesWarning,
    FrechetDistance,
    PixelFeatures,
    frechet_distance,
    frechet_samples,
    gaussian_kl,
    gaussian_statistics,
)
from .gaussian_fit import GaussianFitKL, expected_gaussian_fit_kl, gaussian_fit_kl
from .inception import InceptionFeatures, fid
from .inception_score import Score, inception_score
from .kernel_distance import kid
from .memorisation import Memorisation, memorisation, nearest
from .modes import ModeFractions, mode_fractions
from .resampling import Bootstrap, bootstrap
from .statistics import Statistics, load_statistics, save_statistics
from .wasserstein import sinkhorn, wasserstein

__all__ = [
    "Bootstrap",
    "ClassifierFeatures",
    "FewSamplesWarning",
    "FrechetDistance",
    "GaussianFitKL",
    "InceptionFeatures",
    "Memorisation",
    "ModeFractions",
    "PixelFeatures",
    "Score",
    "Statistics",
    "bootstrap",
    "energy_distance",
    "expected_gaussian_fit_kl",
    "fid",
    "frechet_distance",
    "frechet_samples",
    "gaussian_fit_kl",
    "gaussian_kl",
    "gaussian_statistics",
    "inception_score",
    "kid",
    "load_statistics",
    "memorisation",
    "mode_fractions",
    "nearest",
    "save_statistics",
    "sinkhorn",
    "wasserstein",
]
