"""Score networks and the reader of their released checkpoints, and the networks beside them."""

from .classifier import Classifier
from .cld import CLDNet
from .fsrcnn import FSRCNN, import_fsrcnn
from .import_ncsn import import_ncsn
from .mlp import MLP
from .ncsn import NCSN, NCSNv2
from .norm import ConditionalInstanceNorm2dPlus, InstanceNorm2dPlus

__all__ = [
    "CLDNet",
    "Classifier",
    "ConditionalInstanceNorm2dPlus",
    "FSRCNN",
    "InstanceNorm2dPlus",
    "MLP",
    "NCSN",
    "NCSNv2",
    "build",
    "import_fsrcnn",
    "import_ncsn",
]

CLASSES = {"CLDNet": CLDNet, "Classifier": Classifier, "FSRCNN": FSRCNN, "MLP": MLP, "NCSN": NCSN, "NCSNv2": NCSNv2}


def build(config):
    """The network that a `config()` describes, with fresh weights.

    Args:
        config: {"class": name, ...arguments of that class}.

    Raises:
        ValueError: unknown class, missing or unknown argument.
    """
    arguments = dict(config)
    name = arguments.pop("class", None)
    if not isinstance(name, str) or name not in CLASSES:
        raise ValueError(f"build: config must have a class of {', '.join(CLASSES)}, got {name!r}")
    try:
        return CLASSES[name](**arguments)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"build: config must hold the arguments of {name}, got {sorted(arguments)}") from error
