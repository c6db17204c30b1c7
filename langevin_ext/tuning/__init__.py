"""Choosing a scheme: the exact law of every scheme on Gaussian data, and the search that uses it."""

from .fit import fit
from .law import Law, evolve
from .modes import GaussianData, upsample_matrix
from .plot import front_plot
from .result import Candidate, TuneResult
from .tuner import STEPS, tune

__all__ = [
    "Candidate",
    "GaussianData",
    "Law",
    "STEPS",
    "TuneResult",
    "evolve",
    "fit",
    "front_plot",
    "tune",
    "upsample_matrix",
]
