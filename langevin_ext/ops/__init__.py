"""The fused operations: one function each, on the native core where it can run and on `reference` where it cannot.

Each is registered with torch.library (schema, fake, autograd), so that it works under autograd, torch.compile and
inference mode alike. Randomness is always a function of (seed, stream, step, first + sample, element) alone; see
`langevin_ext.noise`.
"""

from .cld_step import cld_step
from .conv3x3 import conv3x3
from .dsm_loss import dsm_loss
from .instance_norm_plus import instance_norm_plus
from .langevin_step import langevin_step
from .langevin_table_step import advance_row, langevin_table_step
from .perturb import perturb
from .philox import philox_normal, philox_words
from .upsample_bicubic2x import upsample_bicubic2x

__all__ = [
    "advance_row",
    "cld_step",
    "conv3x3",
    "dsm_loss",
    "instance_norm_plus",
    "langevin_step",
    "langevin_table_step",
    "perturb",
    "philox_normal",
    "philox_words",
    "upsample_bicubic2x",
]
