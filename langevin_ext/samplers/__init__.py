"""Schemes by name. A scheme is a function from ladders and step settings to stages, tables of rows (see `table`)."""

import inspect
from collections.abc import Callable

from .langevin import annealed, langevin

SCHEMES: dict[str, Callable] = {"langevin": langevin, "annealed": annealed, "HRS": annealed}

COMMON = ("ladders", "eps", "n_steps_each", "denoise", "inpainting")  # arguments that every scheme takes


def build(scheme, ladders, options, **common) -> list:
    """The stages of a scheme.

    Args:
        scheme: a name in `SCHEMES`.
        ladders: sigmas of each model, coarsest first, as lists of floats.
        options: dict of the scheme's own options.
        common: the other arguments in `COMMON`.

    Raises:
        ValueError: the scheme is unknown; the message lists the known ones. Or an option is not the scheme's.
    """
    builder = SCHEMES.get(scheme) if isinstance(scheme, str) else None
    if builder is None:
        raise ValueError(f"sample: argument scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
    own = [name for name in inspect.signature(builder).parameters if name not in COMMON]
    for name in options:
        if name not in own:
            raise ValueError(f"sample: scheme {scheme!r} has the options {', '.join(own)}, got {name!r}")
    return builder(ladders, **common, **options)
