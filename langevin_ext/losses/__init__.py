"""Objectives that train a score network s(x, level) on data.

A loss takes a model with `model(x, level)` and `model.sigmas`, a batch x (B, C, H, W) and the level of each sample,
and returns one value per sample; `hsm` takes a velocity model and times instead. The noise is a function of (seed,
step, first + i), not of the batch that a sample stands in.
"""

from .dsm import dsm
from .hsm import hsm
from .ism import ism
from .ssm import ssm, ssm_vr

__all__ = ["dsm", "hsm", "ism", "ssm", "ssm_vr"]
