"""Schemes by name. A scheme is a function from ladders and step settings to stages (see `table`)."""

import inspect
from collections.abc import Callable

from . import names
from .langevin import annealed, langevin
from .multiresolution import multiresolution

SCHEMES: dict[str, Callable] = {"langevin": langevin, "annealed": annealed, "HRS": annealed}

COMMON = ("ladders", "scheme", "eps", "n_steps_each", "denoise", "inpainting")  # arguments that every scheme takes


def build(scheme, ladders, options, **common) -> tuple[str, list]:
    """The name of a scheme as it prints itself, and its stages.

    Args:
        scheme: a name in `SCHEMES`, or one that `names.parse` understands.
        ladders: sigmas of each model, coarsest first, as lists of floats.
        options: dict of the scheme's own options.
        common: the other arguments in `COMMON`; eps and n_steps_each are lists, of each model.

    Raises:
        ValueError: the scheme is unknown; the message lists the known ones. Or an option is not the scheme's.
    """
    builder = SCHEMES.get(scheme) if isinstance(scheme, str) else None
    if builder is None:
        parsed = names.parse(scheme, [len(ladder) for ladder in ladders])
        scheme, builder, common = str(parsed), multiresolution, common | {"scheme": parsed}
    own = [name for name in inspect.signature(builder).parameters if name not in COMMON]
    for name in options:
        if name not in own:
            raise ValueError(f"sample: scheme {scheme!r} has the options {', '.join(own)}, got {name!r}")
    return scheme, builder(ladders, **common, **options)
