"""Schemes by name. A scheme is a function from the settings of a run to its stages (see `table`)."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from . import names
from .cld import cld_em, cld_ode, cld_sscs
from .consistent import consistent
from .diffusion import ou_reverse, probability_flow
from .langevin import annealed, langevin
from .measurement import jms, sms, walk_jump
from .multiresolution import multiresolution


@dataclass(frozen=True)
class Scheme:
    """How a scheme is built, and what it expects."""

    build: Callable  # from those of the arguments in `COMMON` that it names, and its own options, to stages
    init: str = "uniform"  # where it starts by default
    own_levels: bool = False  # whether its options say at which noise levels it runs
    velocity: bool = False  # whether its model is one of critically-damped dynamics, model(u, t)


SCHEMES: dict[str, Scheme] = {
    "langevin": Scheme(langevin),
    "annealed": Scheme(annealed),
    "HRS": Scheme(annealed),
    "consistent": Scheme(consistent),
    "walk-jump": Scheme(walk_jump, own_levels=True),
    "jms": Scheme(jms, init="zeros", own_levels=True),
    "sms": Scheme(sms, init="zeros", own_levels=True),
    "ou-reverse": Scheme(ou_reverse, init="normal", own_levels=True),
    "probability-flow": Scheme(probability_flow),
    "cld-em": Scheme(cld_em, init="normal", velocity=True),
    "cld-sscs": Scheme(cld_sscs, init="normal", velocity=True),
    "cld-ode": Scheme(cld_ode, init="normal", velocity=True),
}

COMMON = ("models", "ladders", "scheme", "eps", "n_steps_each", "denoise", "inpainting")  # what a scheme may name


def find(scheme, levels) -> tuple[str, Scheme, dict]:
    """The name of a scheme as it prints itself, the scheme, and the arguments that its name holds.

    Args:
        scheme: a name in `SCHEMES`, or one that `names.parse` understands.
        levels: number of noise levels of each model, coarsest first.

    Raises:
        ValueError: the scheme is unknown; the message lists the known ones.
    """
    if isinstance(scheme, str) and scheme in SCHEMES:
        return scheme, SCHEMES[scheme], {}
    plain = [f"{name} (= HRS)" if name == "annealed" else name for name in SCHEMES if name != "HRS"]
    parsed = names.parse(scheme, levels, plain)
    return str(parsed), Scheme(multiresolution), {"scheme": parsed}


def build(scheme, ladders, options, **common) -> tuple[str, list]:
    """The name of a scheme as it prints itself, and its stages.

    Args:
        scheme: as for `find`.
        ladders: sigmas of each model, coarsest first, as lists of floats.
        options: dict of the scheme's own options.
        common: the other arguments in `COMMON`; eps and n_steps_each are lists, of each model.

    Raises:
        ValueError: the scheme is unknown, or an option is not the scheme's.
    """
    name, found, parts = find(scheme, [len(ladder) for ladder in ladders])
    arguments = common | parts | {"ladders": ladders}
    taken = inspect.signature(found.build).parameters
    own = [option for option in taken if option not in COMMON]
    for option in options:
        if option not in own:
            raise ValueError(f"sample: scheme {name!r} has the options {', '.join(own) or 'none'}, got {option!r}")
    missing = [o for o in own if taken[o].default is inspect.Parameter.empty and o not in options]
    if missing:
        raise ValueError(f"sample: scheme {name!r} needs the option {missing[0]}")
    return name, found.build(**{key: value for key, value in arguments.items() if key in taken}, **options)


def takes(scheme: Scheme, argument) -> bool:
    """Whether a scheme names one of the arguments in `COMMON`."""
    return argument in inspect.signature(scheme.build).parameters
