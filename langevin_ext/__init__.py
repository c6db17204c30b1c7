"""Score-based Langevin sampling on fused C++/CUDA kernels: fast, exact, reproducible.

    model = langevin_ext.load("digits")
    x = langevin_ext.sample(model, scheme="annealed", n=64)

A score network is trained with `train` on a dataset of `langevin_ext.data`; any `score = model(x, level)` can be
sampled. `backend_info()` says whether the native kernels run, and why not.
"""

__version__ = "0.1.0"

from . import data, experiments, losses, metrics, noise, ops, plots, reference, schedules, scores, sharding, training
from ._native import SlowerPathWarning, backend_info
from .diagnostics import Diagnosis, diagnose
from .models import FSRCNN, MLP, NCSN, CLDNet, NCSNv2, import_fsrcnn, import_ncsn
from .processes import CriticallyDamped
from .samplers.measurement import jump
from .sampling import Plan, plan, sample
from .schedules import geometric_sigmas
from .scores import ScoreFunction
from .training import load, save, train, train_upsampler
from .tuning import tune

__all__ = [
    "CLDNet",
    "CriticallyDamped",
    "Diagnosis",
    "FSRCNN",
    "MLP",
    "NCSN",
    "NCSNv2",
    "Plan",
    "ScoreFunction",
    "SlowerPathWarning",
    "backend_info",
    "data",
    "diagnose",
    "experiments",
    "geometric_sigmas",
    "import_fsrcnn",
    "import_ncsn",
    "jump",
    "load",
    "losses",
    "metrics",
    "noise",
    "ops",
    "plan",
    "plots",
    "reference",
    "sample",
    "save",
    "schedules",
    "scores",
    "sharding",
    "train",
    "train_upsampler",
    "training",
    "tune",
]
