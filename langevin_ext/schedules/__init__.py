"""Ladders of noise levels and the step sizes of Langevin dynamics on them.

sigmas is one-dimensional, positive and strictly decreasing, in units of x. Two conventions of the step are in use:

    eps      x <- x + eps/2 s + sqrt(eps) z        NCSN (Song & Ermon 2019, arXiv:1907.05600), equation 5, Algorithm 1
    step_lr  x <- x + g s + sqrt(2 g) z            the code released with it and with NCSNv2 (arXiv:2006.09011)

They are one rule with eps = 2 step_lr: the released code's 2e-5 is the paper's 4e-5.

`suggest_sigmas` and `suggest_eps` choose both from the data, by techniques 1, 2 and 4 of NCSNv2 (Song & Ermon 2020,
arXiv:2006.09011).
"""

from .steps import (
    DEFAULT_EPS,
    check_eps,
    check_sigmas,
    eps_from_step_lr,
    geometric_sigmas,
    resolve_eps,
    step_lr_from_eps,
    step_size,
    step_sizes,
)
from .suggest import level_variance, max_distance, overlap, suggest_eps, suggest_ratio, suggest_sigmas

__all__ = [
    "DEFAULT_EPS",
    "check_eps",
    "check_sigmas",
    "eps_from_step_lr",
    "geometric_sigmas",
    "level_variance",
    "max_distance",
    "overlap",
    "resolve_eps",
    "step_lr_from_eps",
    "step_size",
    "step_sizes",
    "suggest_eps",
    "suggest_ratio",
    "suggest_sigmas",
]
