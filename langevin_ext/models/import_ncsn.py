"""Reads the checkpoints of the released NCSN and NCSNv2 code into our networks, without unpickling objects."""

import torch

from ..schedules import geometric_sigmas
from .ncsn import NCSN, NCSNv2

LARGER = {"res31": "NCSNv2Deepest", "res5": "NCSNv2Deeper or NCSNdeeper"}
PREFIX = "module."  # of torch's DataParallel


def import_ncsn(path, shape=None, *, sigmas=None, ema=True):
    """The network of an official checkpoint (NCSN: arXiv:1907.05600, NCSNv2: arXiv:2006.09011), on the CPU.

    Read are a state dict, [state_dict, optimiser, ...] and [state_dict, optimiser, epoch, step, EMA shadow], with or
    without the prefix `module.`. Class, width, channels and number of levels come from the tensors.

    Args:
        path: a .pth file written by torch.save.
        shape: (C, H, W); default the checkpoint's channels at 32x32, as the image size is not stored.
        sigmas: noise levels (L,), descending; default for NCSN L geometric levels from 1 to 0.01 (they are not stored),
            for NCSNv2 the stored ones.
        ema: take the exponential moving average of the weights where the file has one.

    Returns:
        NCSN or NCSNv2, in evaluation mode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a checkpoint; the message names the tensors that do not fit.
    """
    state = read_state(path, ema)
    model_class, channels, ngf, sigmas = identify(path, state, sigmas)
    shape = (channels, 32, 32) if shape is None else tuple(shape)
    if shape[0] != channels:
        raise ValueError(f"import_ncsn: shape must have the checkpoint's {channels} channels, got {shape}")
    if model_class is NCSNv2:
        state["sigmas"] = torch.as_tensor(sigmas, dtype=torch.float32)
    with torch.device("meta"):  # a width that the other tensors do not have must not take any memory
        check_fit(path, state, model_class(shape, ngf, sigmas))
    model = model_class(shape, ngf, sigmas)
    if model_class is NCSNv2:
        state["sigmas"] = model.sigmas
    model.load_state_dict(state)
    return model.eval()


def read_state(path, ema, name="import_ncsn"):
    """The state dict {name: tensor} of the file, prefix removed, parameters replaced by their average if asked."""
    with open(path, "rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # bytes that are no pickle raise nearly anything
            raise ValueError(
                f"{name}: {path} must be a file of torch.save with tensors and plain containers alone; "
                "it is damaged, of another kind, or holds objects, which are never unpickled"
            ) from error
    parts = list(content) if isinstance(content, (list, tuple)) else [content]
    if not parts or not is_state(parts[0]):
        raise ValueError(
            f"{name}: {path} must hold a state dict or a list starting with one, got {type(content).__name__}"
        )
    state = plain(parts[0])
    if ema and len(parts) > 4 and is_state(parts[4]):
        state.update(plain(parts[4]))
    return state


def is_state(part):
    """Whether this is a non-empty {name: tensor}."""
    return isinstance(part, dict) and len(part) > 0 and all(torch.is_tensor(value) for value in part.values())


def plain(state):
    """A copy without the prefix of DataParallel."""
    return {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}


def identify(path, state, sigmas):
    """(class, channels, ngf, sigmas), read off the tensors."""
    first = state.get("begin_conv.weight")
    if first is None or first.dim() != 4:
        raise ValueError(f"import_ncsn: {path} has no begin_conv.weight; its tensors are {some(state)}")
    for stage, name in LARGER.items():
        if any(key.startswith(f"{stage}.") for key in state):
            raise ValueError(
                f"import_ncsn: {path} looks like {name}, a larger network than NCSN and NCSNv2 (it has {stage})"
            )
    ngf, channels = first.shape[:2]
    embedding = state.get("normalizer.embed.weight")
    if embedding is not None:
        levels = len(embedding)
        if sigmas is None and levels > 1:
            sigmas = geometric_sigmas(1.0, 0.01, levels)
        if sigmas is None or len(sigmas) != levels:
            got = "none" if sigmas is None else len(sigmas)
            raise ValueError(f"import_ncsn: sigmas must have the checkpoint's {levels} levels, got {got}")
        return NCSN, channels, ngf, sigmas
    if sigmas is None and "sigmas" not in state and "normalizer.alpha" in state:
        raise ValueError(
            f"import_ncsn: {path} looks like the unconditional baseline network (it has normalizer.alpha "
            "but no sigmas); give sigmas= if these are weights of NCSNv2"
        )
    return NCSNv2, channels, ngf, state.get("sigmas") if sigmas is None else sigmas


def check_fit(path, state, model):
    """Raises one ValueError that names what is missing, unexpected or of another shape."""
    expected = model.state_dict()
    both = [name for name in expected if name in state]
    faults = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {tuple(state[name].shape)}, not {tuple(expected[name].shape)}"
            for name in both
            if state[name].shape != expected[name].shape
        ],
    }
    found = [f"{len(names)} {kind}: {some(names)}" for kind, names in faults.items() if names]
    if found:
        raise ValueError(
            f"import_ncsn: {path} does not fit {type(model).__name__} with ngf={model.ngf}; " + "; ".join(found)
        )


def some(names, count=3):
    """The first few names."""
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
