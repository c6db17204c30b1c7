"""Which of the models of a run are computed by an engine, and in which precision."""

import collections
import weakref

import torch

from .. import engine

# Runs of one network share its engine, and with it the memory of its repacked weights, while one of them lives. On a
# GPU the last few live on, with the steps that were captured of them, until others take their place.
_engines: weakref.WeakValueDictionary[tuple[int, str], engine.Engine] = weakref.WeakValueDictionary()
_recent: collections.deque[engine.Engine] = collections.deque(maxlen=4)


def engines_of(models, precision, device, dtype, batch) -> tuple[list, str, list[str]]:
    """What a run calls in the place of each model, its precision, and a sentence on each model.

    An engine where there is one, else the model itself.

    Args:
        models: as the user gave them.
        precision: one of `engine.PRECISIONS`.
        device, dtype: of the state.
        batch: samples at a time.

    Raises:
        ValueError: a model has no engine, or not on this device, and the precision needs one.
    """
    if precision not in engine.ON_CPU and device.type == "cpu":
        allowed = ", ".join(engine.ON_CPU)
        raise ValueError(f"sample: argument precision must be one of {allowed} on the CPU, got {precision!r}")
    if dtype != torch.float32:
        reasons = [f"engines are for float32 states, this one is {dtype}"] * len(models)
    else:
        reasons = [engine.why_not(model) for model in models]
    if precision not in ("auto", "fp32") and any(reasons):
        raise ValueError(f"sample: argument precision must be 'auto' or 'fp32' here; {next(filter(None, reasons))}")
    runners = [model if why else _engine(model, precision, batch) for model, why in zip(models, reasons, strict=True)]
    notes = [f"the model itself: {why}" if why else str(one) for one, why in zip(runners, reasons, strict=True)]
    if dtype == torch.float64:
        return runners, "fp64", notes
    kinds = [one.precision if isinstance(one, engine.Engine) else "fp32" for one in runners]
    return runners, " and ".join(dict.fromkeys(kinds)), notes


def _engine(model, precision, batch):
    """The engine that another run has of this model, or a new one."""
    key = (id(model), precision)
    found = _engines.get(key)
    device = next(model.parameters()).device
    if found is None or found.model is not model or found.device != device:
        found = _engines[key] = engine.build(model, precision=precision, batch=batch)
    if device.type == "cuda" and found not in _recent:
        _recent.append(found)
    return found


def notes_of(runners, notes) -> list[str]:
    """The sentence on each model, as it is by now."""
    return [str(one) if isinstance(one, engine.Engine) else note for one, note in zip(runners, notes, strict=True)]


def forget() -> None:
    """Gives the memory of the engines on a GPU back that no run has, and that of their captured steps."""
    _recent.clear()
