"""How far samples are from data."""

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
from .inception import InceptionFeatures, fid
from .inception_score import Score, inception_score
from .kernel_distance import kid
from .memorisation import Memorisation, memorisation, nearest
from .resampling import Bootstrap, bootstrap
from .statistics import Statistics, load_statistics, save_statistics
from .wasserstein import sinkhorn, wasserstein

__all__ = [
    "Bootstrap",
    "ClassifierFeatures",
    "FewSamplesWarning",
    "FrechetDistance",
    "InceptionFeatures",
    "Memorisation",
    "PixelFeatures",
    "Score",
    "Statistics",
    "bootstrap",
    "fid",
    "frechet_distance",
    "frechet_samples",
    "gaussian_kl",
    "gaussian_statistics",
    "inception_score",
    "kid",
    "load_statistics",
    "memorisation",
    "nearest",
    "save_statistics",
    "sinkhorn",
    "wasserstein",
]
