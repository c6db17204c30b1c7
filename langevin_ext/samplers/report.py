"""What a run reports of itself: the settings that its samples depend on, and `info`."""

from .. import _native
from . import graphs
from .engines import notes_of
from .monitor import diagnostics, place_of
from .record import fingerprint
from .starts import DataStart
from .table import Upsample


def settings_of(job, snapshot) -> dict:
    """What the samples depend on, as JSON-able values."""
    value = {
        "scheme": job.plan.scheme,
        "n": job.plan.n,
        "seed": job.seed,
        "first": job.first,
        "batch_size": job.plan.batch_size,
        "shape": list(job.plan.shape),
        "sigmas": job.plan.sigmas,
        "eps": _one(job.plan.eps),
        "n_steps_each": _one(job.plan.n_steps_each),
        "denoise": job.plan.denoise,
        "init": _start(job.init),
        "known": None,
        "mask": None,
        "options": job.options,
        "dtype": str(job.dtype).removeprefix("torch."),
        "precision": job.precision,
        "device": job.device.type,
        "snapshot": snapshot,
    }
    if job.pixels is not None:
        known, mask = job.pixels[job.plan.output]
        value |= {"known": fingerprint(known), "mask": fingerprint(mask)}
    if any(isinstance(stage, Upsample) for stage in job.plan.stages):
        value["upsample"] = job.upsample if isinstance(job.upsample, str) else fingerprint(job.upsample)
    return value


def _start(init) -> str:
    """A name, or what identifies a tensor or data."""
    if isinstance(init, DataStart):
        return f"data {init.fingerprint}"
    return init if isinstance(init, str) else fingerprint(init)


def _one(values):
    """The value of all models, or the list where they differ."""
    return values[0] if len(set(values)) == 1 else values


def backend_of(job) -> dict:
    """backend, precision; for each model, engine: what computes, and why; for each stage, graph: how its rows run."""
    return {
        "backend": f"{'native' if _native.core(job.device) else 'reference'} on {job.device}",
        "precision": job.precision,
        "engine": notes_of(job.runners, job.engine),
        "graph": graphs.notes(job),
    }


def info_of(job, record, monitor, settings, kept) -> dict:
    return {
        "evaluations": job.plan.evaluations,
        "calls": monitor.calls,
        "seconds": record.seconds,
        "images_per_second": job.plan.n / max(record.seconds, 1e-9),
        "settings": settings,
        **backend_of(job),
        "diagnostics": diagnostics(job.plan, record.statistics),
        "snapshots": record.snapshots,
        "snapshot_places": [place_of(job.plan.stages, *place) for place in kept],
    }
