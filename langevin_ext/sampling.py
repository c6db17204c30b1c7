"""`sample` draws images from a score by a scheme; `plan` says what that will cost."""

import functools
import statistics
import time
from dataclasses import replace
from typing import Any, Literal, overload

import torch

from ._interruption import Interruption
from ._progress import Progress
from .samplers import graphs, inputs
from .samplers.job import Job, Plan, prepare
from .samplers.loop import Evaluation, Inpainting, run_stage, set_known
from .samplers.monitor import Monitor, kept_rows, n_kept
from .samplers.record import Checkpoint, Record, fingerprint, new_record
from .samplers.report import info_of, settings_of
from .samplers.starts import start as start_at
from .samplers.table import Change, Upsample
from .samplers.upsampling import upsampled

__all__ = ["sample", "plan", "Plan"]


@overload
def sample(
    model: Any, scheme: Any = ..., n: Any = ..., *, return_info: Literal[True], **options: Any
) -> tuple[torch.Tensor, dict]: ...
@overload
def sample(model: Any, scheme: Any = ..., n: Any = ..., **options: Any) -> torch.Tensor: ...
def sample(
    model,
    scheme="annealed",
    n=16,
    *,
    seed=0,
    first=0,
    batch_size=None,
    sigmas=None,
    eps=None,
    step_lr=None,
    n_steps_each=100,
    denoise=True,
    init=None,
    data=None,
    known=None,
    mask=None,
    upsample="bicubic",
    precision="auto",
    graph="auto",
    device=None,
    progress=True,
    status=None,
    callback=None,
    snapshot=None,
    snapshot_n=None,
    checkpoint=None,
    return_info=False,
    **scheme_options,
) -> torch.Tensor | tuple[torch.Tensor, dict]:
    """Samples from a score by Langevin dynamics (NCSN, arXiv:1907.05600, Algorithms 1 and 2).

        for i in levels:
            step_size = eps (sigma_i / sigma_L)^2
            x <- x + step_size/2 score(x, i) + sqrt(step_size) z          n_steps_each times
        x <- x + sigma_L^2 score(x, L)                                    if denoise

    Sample i depends on (seed, first + i), the scheme and the model alone: not on n, the batch size, or interruptions.

    Args:
        model: score = model(x, level), x (B, C, H, W), level int64 (B,) indexing model.sigmas (L,), descending, in
            units of x; model.shape (C, H, W). A network is put in evaluation mode for the run. Or a list of such
            models, coarsest first, each of twice the height and width of the one before.
        scheme: "annealed" (= "HRS"); "langevin", one level; another of `samplers.SCHEMES`; or a scheme over several
            resolutions by its name in the multi-scale paper (arXiv:2006.11166): "LRS", "LRS-up", "LRS-up-HRS-3",
            "LRS-2-up-HRS-9" for a low and a high one, "R2[1:4]-up-R1[4:7]-up-R0[7:10]" for any number; see
            `samplers.names`. A scheme of one resolution runs the last model.
        n: number of samples.
        seed: integer in [0, 2^64).
        first: global index of the first sample.
        batch_size: samples at a time; by default as many as have 2^16 values of x on the CPU, and as fill a GPU.
        sigmas: levels to run instead of all of the model's; any, if the model has at_sigma(x, sigma).
        eps: step size at the last level, default 2e-5; or
        step_lr: the same as the released code states it, eps = 2 step_lr.
        n_steps_each: steps per level. Of sigmas, eps, step_lr and this a list gives each model its own.
        denoise: make the last line's update with the last model that runs, on the unknown pixels if some are known.
        init: "uniform" on (0, 1), "normal", "zeros", "data", or a tensor (n, C, H, W) for the first model that runs; by
            default what the scheme starts from, uniform for Langevin dynamics.
        data: with init="data" the images to start from, drawn with replacement: a dataset or a tensor (N, C, H, W).
            If the model was trained on just these, a warning recommends fresh ones (arXiv:2603.11319).
        known, mask: known pixels and where they are, (C, H, W), (1, H, W) or (n, C, H, W), mask bool or 0 and 1. Known
            pixels end as known + sigma_L z; torch.where(mask, known, x) pastes them without the noise. At a lower
            resolution a pixel is the mean of its block, and known where the whole block is.
        upsample: "bicubic" (torch's, a = -0.75), "bicubic-pil" (a = -0.5), "bilinear", "nearest", or a callable
            (B, C, H, W) -> (B, C, 2 H, 2 W), e.g. a trained `models.FSRCNN`.
        precision: of our networks, which an `engine` computes; see `engine.build`. "auto" is the fastest that does not
            show, info["precision"] says which. Other models are called as they are.
        graph: whether Langevin steps of an engine are captured once and replayed: "auto" does so on a GPU; True raises
            where it cannot (and on the CPU makes the same calls one by one); False does not. The samples are the same.
        device: that of the model by default.
        progress: show a bar with the rate and the time left, or a line a minute where stderr is not a terminal.
        status: path of a JSON file that says every ten seconds how far the run is (see `langevin-ext status`).
        callback: called after each update with a dict of x (the state itself: clone what is kept), stage, level,
            sigma, step (updates before this one), kind ("step", "denoise" or "upsample") and first (global index of
            x[0]).
        snapshot: "levels" or k: keep x after each level and upsampling, or after every k-th step; needs return_info.
        snapshot_n: keep so many of the first samples in them instead of all.
        checkpoint: path of a file in which the run saves its state as it goes, at most 5 % of the time. The same call
            continues it, bit for bit; when complete the file stays, and the same call returns its samples. Networks
            are recognised by their parameters, other models by class and public attributes (names without a leading
            underscore), functions by code, defaults and closure.
        return_info: return (x, info).
        scheme_options: "annealed": sigma_ref, inpaint_order="paper"|"refresh"; "langevin": level, inpaint_order; the
            others over several resolutions: sigma_ref, renoise, inpaint_order; "consistent": eta; "walk-jump": sigma,
            delta; "jms", "sms": sigma, m, delta; "ou-reverse": T, gamma; "probability-flow": method, n_steps, rtol,
            atol; "cld-em", "cld-sscs", "cld-ode": n_evals, striding="quadratic"|"linear", t_end; all: dtype, that of
            the state and of a network's parameters, torch.float32 or (on the CPU) torch.float64.

    Returns:
        (n, C, H, W) on the device of the run, float32, or float64 with dtype=torch.float64; with return_info also a
        dict: evaluations per sample and calls made, by resolution; seconds over all sessions, images_per_second;
        settings, backend, precision; engine and graph, sentences on what computes each model and how each stage runs,
        and why; diagnostics, a dict per level with sigma times the norm of the score, mean, variance, share not finite;
        snapshots, a list of (n, C, H, W) on the CPU, and snapshot_places.

    Raises:
        ValueError, TypeError: an argument is wrong, eps unstable, the checkpoint damaged, in use, or another run's.
        FloatingPointError: the state is not finite; names level, step and samples.
        MemoryError: a sample alone does not fit. Of a batch that does not the score is taken in halves, and said.
        OSError: the checkpoint cannot be written; the one before is kept.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the update at hand, and the checkpoint if there is one.
    """
    job = prepare(
        model,
        scheme,
        n,
        seed=seed,
        first=first,
        batch_size=batch_size,
        sigmas=sigmas,
        eps=eps,
        step_lr=step_lr,
        n_steps_each=n_steps_each,
        denoise=denoise,
        init=init,
        data=data,
        known=known,
        mask=mask,
        upsample=upsample,
        precision=precision,
        graph=graph,
        device=device,
        **scheme_options,
    )
    snapshot = inputs.plain(snapshot)
    kept = kept_rows(job.plan.stages, snapshot)
    if snapshot is not None and not return_info:
        raise ValueError("sample: argument snapshot needs return_info=True, which returns the snapshots")
    if callback is not None and not callable(callback):
        raise TypeError(f"sample: argument callback must be callable, got {type(callback).__name__}")
    count = n_kept(job.plan.n, snapshot_n)
    record = new_record(job.plan, kept, job.dtype, count)
    settings = settings_of(job, snapshot) | ({} if snapshot_n is None else {"snapshot_n": count})
    file = Checkpoint(checkpoint, settings | {"model": "".join(map(fingerprint, job.models))} if checkpoint else None)
    file.load(record)
    steps = _rows(job) * job.plan.batches
    status = inputs.new_file("status", status)
    with (
        file.held(record.batch == job.plan.batches),
        Progress(steps, job.plan.scheme, "step", initial=done(job, record), shown=progress, status=status) as bar,
        Interruption() as interruption,
        torch.inference_mode(),
        inputs.evaluation_mode([*job.models, job.upsample]),
    ):
        monitor = Monitor(job, record, file, interruption, snapshot=snapshot, callback=callback, bar=bar)
        while record.batch < job.plan.batches:
            run_batch(job, record, monitor, file)
    x = record.x.to(job.device)
    return (x, info_of(job, record, monitor, settings, kept)) if return_info else x


def plan(model, scheme="annealed", n=16, *, measure=False, **arguments) -> Plan:
    """The stages and the cost of `sample(model, scheme, n, ...)`, without running it.

    Args:
        model, scheme, n: as for `sample`.
        measure: make a step with each model and each upsampling on one batch to predict the seconds of the run, the
            sum over its parts.
        arguments: any of `sample`'s; those that only watch the run are ignored.

    Returns:
        `Plan`, with the exact number of evaluations per resolution; str() describes it.
    """
    watching = ("progress", "status", "callback", "snapshot", "snapshot_n", "checkpoint", "return_info")
    job = prepare(model, scheme, n, **{name: value for name, value in arguments.items() if name not in watching})
    return replace(job.plan, unit_seconds=_measure(job)) if measure else job.plan


def run_batch(job: Job, record: Record, monitor: Monitor, file: Checkpoint) -> None:
    """Runs the stages of one batch, from where the record stands to the end, and stores its samples."""
    batch, low = record.batch, record.batch * job.plan.batch_size
    high = min(low + job.plan.batch_size, job.plan.n)
    if record.state is None:
        shape = job.plan.shapes[job.plan.stages[0].model]
        x = start_at(job.init, low, high, shape, seed=job.seed, first=job.first, device=job.device, dtype=job.dtype)
    else:
        x = record.state.to(job.device, copy=True)
    skip, start = record.stage, record.row
    for number, stage in list(enumerate(job.plan.stages))[skip:]:
        if isinstance(stage, Upsample):
            x = _upsample(job, stage, x, low)
            monitor.upsampled(number, low, x)
            continue
        if isinstance(stage, Change):
            x = _changed(job, stage, x, low, monitor)
            continue
        arguments = {
            "score": monitor.counting(stage),
            "seed": job.seed,
            "first": job.first + low,
            "start": start,
            "inpainting": _inpainting(job, stage, low, high),
        }
        monitor.watch(number, batch, low, x, arguments)
        x = graphs.run(job, number, x, after=monitor.after, **arguments)
        start = 0
    monitor.copies.flush()
    record.x[low:high] = x.cpu()
    record.batch, record.stage, record.row, record.state = batch + 1, 0, 0, None
    monitor.lap()
    done = record.batch == job.plan.batches
    if file.is_due or monitor.interruption.asked or done:
        file.save(record)
    if not done:
        monitor.interruption.check()


def _changed(job, stage, x, low, monitor):
    """The state of the batch from sample `low` on that a `Change` makes of x."""
    score = Evaluation(monitor.counting(stage))
    y = stage.apply(x, score, seed=job.seed, first=job.first + low)
    if not torch.isfinite(y).all():
        raise FloatingPointError(f"sample: the state is not finite after the stage {str(stage)!r}; try smaller steps")
    return y


def _upsample(job, stage, x, low):
    """x of the batch from sample `low` on at the next resolution, its known pixels set if the scheme ends there."""
    y = upsampled(x, stage, job.upsample, seed=job.seed, first=job.first + low)
    if stage.paste_sigma is not None:
        inpainting = _inpainting(job, stage, low, low + len(y))
        set_known(y, stage.paste_sigma, stage.paste_step, inpainting, job.seed, job.first + low)
    return y


def _inpainting(job, stage, low, high) -> Inpainting | None:
    if job.pixels is None:
        return None
    known, mask = job.pixels[stage.model]
    return Inpainting(known[low:high].contiguous(), mask if mask.dim() == 3 else mask[low:high])


def _rows(job) -> int:
    return sum(len(stage.rows) for stage in job.plan.stages)


def done(job, record) -> int:
    """Rows that a record already holds."""
    return record.batch * _rows(job) + sum(len(stage.rows) for stage in job.plan.stages[: record.stage]) + record.row


def _measure(job) -> dict[str, float]:
    """Seconds of one step with each model that runs, and of each upsampling, for a batch: the median of three."""
    seconds: dict[str, float] = {}
    with torch.inference_mode(), inputs.evaluation_mode([*job.models, job.upsample]):
        for stage in job.plan.stages:
            upsampling = isinstance(stage, Upsample)
            shape = job.plan.shapes[stage.model - 1] if upsampling else job.state_shape(stage)
            shape = (job.plan.batch_size, *shape)
            x = torch.full(shape, 0.5, dtype=job.dtype, device=job.device)
            if isinstance(stage, Upsample):
                name, run = f"upsample {job.plan.sizes[stage.model]}", functools.partial(_upsample, job, stage, x, 0)
            elif scored := [i for i, row in enumerate(stage.rows) if row.evaluations]:
                part = {"seed": job.seed, "first": job.first, "start": scored[0], "stop": scored[0] + 1}
                part["inpainting"] = _inpainting(job, stage, 0, len(x))
                name = job.plan.sizes[stage.model]
                run = functools.partial(run_stage, stage, job.score(stage), x, **part)
            else:
                continue
            run().sum().item()
            each = 1 if upsampling else stage.rows[scored[0]].evaluations
            seconds[name] = statistics.median(_seconds(run) for _ in range(3)) / each
    return seconds


def _seconds(run) -> float:
    began = time.perf_counter()
    run().sum().item()  # waits for the device
    return time.perf_counter() - began
