"""Which of the models of a run are computed by an engine, and in which precision."""

import weakref

import torch

from .. import engine

# Runs of one network share its engine, and with it the memory of its repacked weights, while one of them lives.
_engines: weakref.WeakValueDictionary[tuple[int, str], engine.Engine] = weakref.WeakValueDictionary()


def engines_of(models, precision, device, dtype, batch) -> tuple[list, str, list[str]]:
    """What a run calls in the place of each model, its precision, and a sentence on each model.

    An engine where there is one, else the model itself.

    Args:
        models: as the user gave them.
        precision: "auto", "fp32", "int16" or "bf16".
        device, dtype: of the state.
        batch: samples at a time.

    Raises:
        ValueError: a model has no engine, and "int16" and "bf16" need one.
    """
    if dtype != torch.float32 or device.type != "cpu":
        reasons = [f"engines are for float32 states on the CPU, this one is {dtype} on {device}"] * len(models)
    else:
        reasons = [engine.why_not(model) for model in models]
    if precision in ("int16", "bf16") and any(reasons):
        raise ValueError(f"sample: argument precision must be 'auto' or 'fp32' here; {next(filter(None, reasons))}")
    runners = [model if why else _engine(model, precision, batch) for model, why in zip(models, reasons, strict=True)]
    notes = [f"the model itself: {why}" if why else str(one) for one, why in zip(runners, reasons, strict=True)]
    kinds = {one.precision for one in runners if isinstance(one, engine.Engine)}
    return runners, "fp64" if dtype == torch.float64 else next(iter(kinds), "fp32"), notes


def _engine(model, precision, batch):
    """The engine that another run has of this model, or a new one."""
    key = (id(model), precision)
    found = _engines.get(key)
    if found is None or found.model is not model:
        found = _engines[key] = engine.build(model, precision=precision, batch=batch)
    return found
