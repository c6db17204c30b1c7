"""The experiments of the papers by name."""

import importlib
import time
from pathlib import Path

from .findings import Report

# name: what it shows. A module of that name, with _ for -, has NAME, TITLE, SOURCE and run(out, size, seed, progress).
EXPERIMENTS = {
    "gmm-toy": "NCSN, Fig. 2 and 3: scores where data are rare, and the weights of two modes",
    "manifold": "NCSN, Fig. 1: score matching on data of low dimension, with and without noise",
    "inpainting": "NCSN, Fig. 6: several completions of half an image",
    "robustness": "Langevin dynamics with a score that is right almost everywhere",
    "damping": "CLD, Fig. 5: under-, critically and over-damped dynamics",
    "cld-toy": "CLD, Fig. 6 to 11: loss weights, and its samplers over the number of evaluations",
    "walk-jump": "the law of walk-jump sampling",
    "multi-measurement": "sequential and joint sampling with many measurements",
    "reverse-ou": "the reverse Ornstein-Uhlenbeck process from the scores of a noise-conditional network",
    "divergence": "multi-scale paper: Langevin dynamics run too long with a learned score",
}


def find(name):
    """The module of an experiment.

    Raises:
        ValueError: there is none of this name; the message lists them.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment: argument name must be one of {', '.join(EXPERIMENTS)}, got {name!r}")
    return importlib.import_module(f".{name.replace('-', '_')}", __package__)


def experiment(name, *, out=None, size=1.0, seed=0, progress=True) -> Report:
    """Runs one of the experiments of the papers: the paper's numbers, the closed forms and ours, with a verdict each.

    Args:
        name: a key of `EXPERIMENTS`.
        out: folder for the figures, made if it is not there; None draws nothing.
        size: numbers of samples and of training steps as a share of the full experiment, in (0, 1].
        seed: integer in [0, 2^64); with it every number is the same again.
        progress: show bars.

    Returns:
        `Report`.

    Raises:
        ValueError: the name is unknown, or size out of range.
    """
    module = find(name)
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size <= 1:
        raise ValueError(f"experiment: argument size must be in (0, 1], got {size!r}")
    if out is not None:
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    report = module.run(out, size=size, seed=seed, progress=progress)
    report.seconds = time.monotonic() - began
    return report
