"""Checks of what a user passes to `sample`, and its translation into what the loop needs."""

import contextlib
import operator
from pathlib import Path

import torch
from torch.nn import functional

from ..schedules import check_sigmas, resolve_eps


def integer(name, value, low=0) -> int:
    """`value` as an int of at least `low`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < low:
        raise ValueError(f"sample: argument {name} must be an integer of at least {low}, got {value!r}")
    return number


def plain(value):
    """A numpy or torch scalar as a Python number, anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def new_file(name, value) -> Path | None:
    """The path of a file to write, None for None.

    Raises:
        ValueError: its folder is not there, or it is a folder.
    """
    path = None if value is None else Path(value)
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise ValueError(f"sample: argument {name} must be a file in a folder that exists, got {path}")
    return path


def per_model(name, value, count, check) -> list:
    """One value for all models, or a list of one for each, as a checked list."""
    if getattr(value, "ndim", 0) == 1:
        value = value.tolist()
    if not isinstance(value, list | tuple):
        return [check(value)] * count
    if len(value) != count:
        raise ValueError(
            f"sample: argument {name} must be one value or a list of {count}, one for each model, got {len(value)}"
        )
    return [check(one) for one in value]


def step_settings(eps, step_lr, n_steps_each, count, inpainting) -> tuple[list[float], list[int]]:
    """eps and the steps per level of each of `count` models, from one value for all or lists."""
    steps = per_model("n_steps_each", n_steps_each, count, lambda one: integer("n_steps_each", one))
    if inpainting and 0 in steps:
        raise ValueError("sample: argument n_steps_each must be at least 1 with known pixels, got 0")
    if eps is not None and step_lr is not None:
        resolve_eps(eps, step_lr, "sample")  # raises: they are two conventions of one step
    if step_lr is not None:
        return per_model("step_lr", step_lr, count, lambda one: resolve_eps(None, one, "sample")), steps
    return per_model("eps", eps, count, lambda one: resolve_eps(one, None, "sample")), steps


def ladders_of(models, sigmas) -> tuple[list, list]:
    """The scores and the ladders of all models; `sigmas` is None, one ladder, or a list of one (or None) for each."""
    if getattr(sigmas, "ndim", 0) == 2:
        sigmas = list(sigmas)
    several = isinstance(sigmas, list | tuple) and any(
        one is None or isinstance(one, list | tuple) or getattr(one, "ndim", 0) for one in sigmas
    )
    if several and len(sigmas) != len(models):
        raise ValueError(
            f"sample: argument sigmas must be one ladder or a list of {len(models)}, one for each model, "
            f"got {len(sigmas)}"
        )
    pairs = [ladder_of(model, sigmas[i] if several else sigmas) for i, model in enumerate(models)]
    return [score for score, _ in pairs], [ladder for _, ladder in pairs]


def level_counts(model) -> list[int]:
    """Number of noise levels of a model or of each of a list, 0 for what has none."""
    models = list(model) if isinstance(model, list | tuple) else [model]
    return [len(one.sigmas) if hasattr(one, "sigmas") else 0 for one in models]


def models_of(model, velocity=False) -> list:
    """One model or a list of them, as a list, after checking what each offers.

    Args:
        velocity: whether they are models of critically-damped dynamics, model(u, t).
    """
    models = list(model) if isinstance(model, list | tuple) else [model]
    if not models:
        raise ValueError("sample: argument model must be a model or a list of them, got an empty list")
    attribute, call = ("process", "model(u, t)") if velocity else ("sigmas", "model(x, level)")
    for one in models:
        if not callable(one) or not hasattr(one, attribute) or not hasattr(one, "shape"):
            hint = " (train one with objective='hsm')" if velocity else " (wrap a plain function in ScoreFunction)"
            if not velocity and hasattr(one, "process"):
                hint = "; it is a velocity model: use the scheme cld-em, cld-sscs or cld-ode"
            raise TypeError(
                f"sample: argument model must be callable as {call} and have the attributes {attribute} "
                f"and shape{hint}, got {type(one).__name__}"
            )
        if len(tuple(one.shape)) != 3:
            raise ValueError(f"sample: argument model must have shape (C, H, W), got {tuple(one.shape)}")
    return models


def modules_in(model) -> list[torch.nn.Module]:
    """The networks behind a model: itself, or those among its attributes."""
    if isinstance(model, torch.nn.Module):
        return [model]
    return [value for value in getattr(model, "__dict__", {}).values() if isinstance(value, torch.nn.Module)]


def device_of(models, device=None) -> torch.device:
    """The device of the networks; for models without parameters the given one, or that of their sigmas.

    Raises:
        ValueError: a device is given and the networks are on another.
    """
    found = [
        tensor.device
        for model in models
        for module in modules_in(model)
        for tensor in (*module.parameters(), *module.buffers())
    ]
    others = [one for one in found if one != found[0]]
    if others:
        raise ValueError(
            f"sample: argument model must be on one device with all its parts, got {found[0]}, {others[0]}"
        )
    if device is None:
        return found[0] if found else torch.as_tensor(getattr(models[0], "sigmas", 0)).device
    device = _known_device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    if found and found[0] != device:
        raise ValueError(
            f"sample: argument device must be the model's, {found[0]} (move the model first, with "
            f"model.to({str(device)!r})), got {device}"
        )
    return device


def _known_device(device) -> torch.device:
    """The torch.device of a name, if this machine has it."""
    try:
        known = torch.device(device)
    except (RuntimeError, TypeError):
        known = None
    if known is None or known.type not in ("cpu", "cuda", "meta"):  # meta, for shapes without values
        raise ValueError(f"sample: argument device must be 'cpu', 'cuda' or 'cuda:0' and so on, got {device!r}")
    if known.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (known.index or 0) >= count:
            have = f"'cpu' or 'cuda:0' to 'cuda:{count - 1}'" if count else "'cpu', as torch finds no CUDA device"
            raise ValueError(f"sample: argument device must be {have}, got {str(known)!r}")
    return known


def check_dtype(models, dtype, device) -> None:
    """Raises if the state of this dtype cannot run on the device or through the networks."""
    if dtype == torch.float64 and device.type != "cpu":
        raise ValueError(f"sample: option dtype must be torch.float32 on {device}, torch.float64 is for the CPU")
    for model in models:
        found = [p.dtype for p in model.parameters()] if isinstance(model, torch.nn.Module) else []
        if found and found[0] != dtype:
            raise ValueError(f"sample: option dtype must be that of the model's parameters, {found[0]}, got {dtype}")


class Relevelled:
    """A model with levels of its own run on another ladder: level i of that ladder is `index[i]` of the model's."""

    def __init__(self, model, index):
        self.model, self.index, self.shape = model, torch.tensor(index), tuple(model.shape)

    def __call__(self, x, level):
        self.index = self.index.to(x.device)
        return self.model(x, self.index[level])


class Continuous:
    """A model that offers at_sigma run on a ladder of any sigmas."""

    def __init__(self, model, sigmas):
        self.model, self.sigmas, self.shape = model, torch.tensor(sigmas, dtype=torch.float64), tuple(model.shape)

    def __call__(self, x, level):
        self.sigmas = self.sigmas.to(x.device)
        return self.model.at_sigma(x, self.sigmas[level].to(x.dtype))


def ladder_of(model, sigmas=None, argument="argument sigmas") -> tuple:
    """The score and the noise levels to run.

    Args:
        model: a model with its own sigmas.
        sigmas: None for those; or others, which must be among them (to 1e-5, relative) unless the model has at_sigma.
        argument: what a message calls them.

    Returns:
        score(x, level) with level an index into the ladder, and the ladder as a list of floats.
    """
    own = check_sigmas(model.sigmas, "sample: model.sigmas")
    if sigmas is None:
        return model, own
    ladder = check_sigmas(sigmas, f"sample: {argument}")
    nearest = [min((abs(mine - sigma), i) for i, mine in enumerate(own))[1] for sigma in ladder]
    apart = [sigma for sigma, i in zip(ladder, nearest, strict=True) if abs(own[i] - sigma) > 1e-5 * sigma]
    if not apart:
        whole = nearest == list(range(len(own)))
        return (model, own) if whole else (Relevelled(model, nearest), [own[i] for i in nearest])
    if not hasattr(model, "at_sigma"):
        raise ValueError(
            f"sample: {argument} must be levels of the model, which has no at_sigma; "
            f"got {apart[0]:g}, not one of {', '.join(f'{sigma:g}' for sigma in own)}"
        )
    return Continuous(model, ladder), ladder


def known_pixels(known, mask, n, shapes, output, device, dtype) -> list[tuple] | None:
    """The known pixels at each resolution: known (n, C, H, W), a view where it was given once, and mask bool (C, H, W)
    or (n, C, H, W); None without.

    At half the resolution a pixel is the mean of its four, and known where all four are.

    Args:
        known, mask: as the user gives them, at the resolution of the samples.
        n: number of samples.
        shapes: (C, H, W) of each model.
        output: index of the one that has the shape of the samples; finer ones stay without pixels.
    """
    if known is None and mask is None:
        return None
    shape = shapes[output]
    if known is None or mask is None:
        alone = "mask" if known is None else "known"
        raise ValueError(f"sample: arguments known and mask go together, got {alone} alone")
    known, mask = _image("known", known, n, shape), _image("mask", mask, n, shape)
    if mask.dtype != torch.bool and not ((mask == 0) | (mask == 1)).all():
        raise ValueError("sample: argument mask must be bool or hold only 0 and 1, 1 where the pixel is known")
    if not torch.isfinite(known).all():
        raise ValueError("sample: argument known must be finite")
    known, mask = known.to(device, dtype), mask.to(device, torch.bool).contiguous()
    pixels = [(known.expand(n, *shape), mask)]
    for _ in range(output):
        known, mask = _halved(known), _halved(mask.to(dtype)) == 1
        pixels.insert(0, (known.expand(n, *known.shape[-3:]), mask))
    return pixels


def _halved(images):
    """Means over blocks of 2 x 2 pixels."""
    return functional.avg_pool2d(images, 2)


def _image(name, value, n, shape):
    value = torch.as_tensor(value).detach()
    channels, height, width = shape
    if tuple(value.shape) not in ((n, *shape), tuple(shape), (1, height, width)):
        raise ValueError(
            f"sample: argument {name} must have shape {tuple(shape)}, {(1, height, width)} or "
            f"{(n, *shape)}, got {tuple(value.shape)}"
        )
    return value if value.dim() == 4 else value.expand(shape)


@contextlib.contextmanager
def evaluation_mode(models):
    """Puts the networks in evaluation mode, and each of their modules back afterwards."""
    modes = [(part, part.training) for model in models for module in modules_in(model) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, training in modes:
            part.training = training
