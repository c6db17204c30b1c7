"""The tables of `langevin-ext bench`: kernels, schemes and a run, as rows of plain numbers."""

from dataclasses import replace

import torch

from .. import sampling
from ..samplers import SCHEMES, names
from . import kernels
from .timing import input_sets, rotated, wall_seconds

PAPER = ("LRS", "HRS", "LRS-up", "LRS-up-HRS-3", "LRS-up-HRS-9", "LRS-2-up-HRS-9")  # arXiv:2006.11166, table 1


def kernel_rows(batch, size, channels, device, seconds=30.0, progress=None) -> list[dict]:
    """Each fused op against plain torch and a copy that moves as many bytes; all are checked first.

    Args:
        batch, size, channels: as for `kernels.cases`.
        seconds: for all ops together.
        progress: called after each op.

    Returns:
        a row for each op: medians of torch, fused and copy; their ratios.

    Raises:
        AssertionError: an op and plain torch disagree.
    """
    rows = []
    with torch.inference_mode():
        found = kernels.cases(batch, size, channels, device)
        for name, make in found.items():
            case = make()
            case.check()
            count = input_sets(case.moved, device)
            built = [case, *(make(seed=seed) for seed in range(1, count))]
            sets = {key: [one.calls[key] for one in built] for key in ("torch", "fused")}
            sets["copy"] = [kernels.copy_of(case.moved, device) for _ in range(count)]
            times = rotated(sets, 30, 3, device, seconds=seconds / len(found))
            rows.append(
                {"op": name, "moved_bytes": case.moved}
                | {f"{key}_us": 1e6 * time.median for key, time in times.items()}
                | {"fused_iqr_us": 1e6 * times["fused"].iqr, "timed_as": times["fused"].how}
                | {
                    "ratio_to_torch": times["torch"].median / times["fused"].median,
                    "share_of_copy": times["copy"].median / times["fused"].median,
                }
            )
            if progress is not None:
                progress()
    return rows


def scheme_names(models) -> list[str]:
    """The named schemes for these models: all of one resolution, and the multi-scale paper's for two."""
    velocity = hasattr(models[-1], "process")
    found = [name for name, scheme in SCHEMES.items() if scheme.velocity == velocity and name != "HRS"]
    if len(models) == 1:
        return found
    levels = [len(model.sigmas) for model in models]
    if len(models) > 2:
        top = len(models) - 1
        return [*found, "-up-".join(f"R{top - model}[1:{count}]" for model, count in enumerate(levels))]
    return [*found, *(name for name in PAPER if _fits(name, levels))]


def _fits(name, levels) -> bool:
    try:
        names.parse(name, levels)
    except ValueError:
        return False
    return True


def options_of(name, model) -> dict:
    """What a scheme cannot do without: a level in the middle of the ladder, four measurements."""
    if name not in ("walk-jump", "jms", "sms"):
        return {}
    options = {"sigma": float(model.sigmas[len(model.sigmas) // 2])}
    return options if name == "walk-jump" else options | {"m": 4}


def unit_seconds(models, batch) -> dict[str, float]:
    """Seconds of one evaluation of a batch with each model, and of each upsampling, as `plan` measures them."""
    if hasattr(models[-1], "process"):
        units = sampling.plan(models[-1], "cld-em", batch, batch_size=batch, measure=True).unit_seconds
    else:
        top = len(models) - 1
        path = "-up-".join(f"R{top - model}[1:1]" for model in range(len(models)))
        arguments = {"batch_size": batch, "n_steps_each": 1, "eps": 1e-9, "measure": True}
        units = sampling.plan(models, path, batch, **arguments).unit_seconds
    return units or {}


def scheme_rows(models, schemes, n, batch, units) -> list[dict]:
    """What each scheme would take for n samples: its evaluations times what one takes.

    Args:
        models: coarsest first.
        schemes: names.
        n, batch: samples, and how many at a time.
        units: of `unit_seconds` with that batch.

    Returns:
        a row for each scheme: evaluations by resolution, seconds, images/s; or why the models cannot run it.
    """
    rows = []
    for name in schemes:
        try:
            plan = sampling.plan(models, name, n, batch_size=batch, **options_of(name, models[-1]))
        except (ValueError, ImportError) as error:
            rows.append({"scheme": name, "why_not": str(error).removeprefix("sample: ").split(";")[0]})
            continue
        seconds = replace(plan, unit_seconds=units).seconds or 0.0
        rows.append(
            {
                "scheme": plan.scheme,
                "options": options_of(name, models[-1]),
                "evaluations": plan.evaluations,
                "predicted_s": seconds,
                "images_per_s": n / seconds if seconds else 0.0,
            }
        )
    return rows


def run_row(models, batch, units, seconds=15.0) -> dict:
    """A run of one batch of the annealed scheme, with as many steps a level as fit, against its prediction."""
    model = models[-1]
    if hasattr(model, "process"):
        scheme, arguments = "cld-em", {"n_evals": 20}
    else:
        size = "x".join(map(str, model.shape[1:]))
        each = len(model.sigmas) * max(units[size], 1e-9)
        scheme, arguments = "annealed", {"n_steps_each": max(1, min(100, int(seconds / each)))}
    arguments |= {"batch_size": batch, "progress": False}
    plan = replace(sampling.plan(model, scheme, batch, **arguments), unit_seconds=units)

    time = wall_seconds(lambda: sampling.sample(model, scheme, batch, **arguments).cpu())
    return {
        "scheme": scheme,
        "arguments": {name: value for name, value in arguments.items() if name != "progress"},
        "evaluations": plan.evaluations,
        "seconds": time,
        "evaluations_per_s": batch * sum(plan.evaluations.values()) / time,
        "predicted_s": plan.seconds,
        "measured_to_predicted": time / (plan.seconds or float("nan")),
    }
