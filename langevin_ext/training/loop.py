"""`train`: a run is a folder that can be stopped at any moment and continued exactly."""

import contextlib
import json
import math
import warnings
from pathlib import Path

import torch

from .. import _progress
from .._group import LostProcess, processes
from .._interruption import Interruption
from .._lock import locked
from . import log, state
from .selection import Selector
from .trainer import Settings, Trainer, integer

__all__ = ["train"]


def train(
    model,
    data,
    *,
    out,
    steps,
    batch_size=128,
    lr=1e-3,
    ema=0.999,
    ema_warmup=False,
    seed=0,
    flip=False,
    dequantise=True,
    grad_clip=None,
    anneal_power=2.0,
    save_every=1000,
    log_every=100,
    precision="fp32",
    objective="dsm",
    noisy=True,
    progress=True,
    tensorboard=True,
    resume="auto",
    callback=None,
    select_every=None,
    select=None,
    accumulate=1,
    on_nan="stop",
) -> torch.nn.Module:
    """Trains a score network as NCSN does (Song & Ermon 2019, arXiv:1907.05600, section 4), or by another objective.

        Adam(lr, beta .9 .999, eps 1e-8) on mean_i loss_i(x_i, level_i), level_i uniform
        dsm:  loss_i = 1/2 sigma_i^(p-2) |sigma_i s(x_i + sigma_i z_i, level_i) + z_i|^2

    A run of 2k steps equals one of k steps that is called again with steps=2k, bit for bit on one device with one
    number of threads; so does a run that was killed.

    Under torchrun the processes share each batch (see `parallel`): the same data, labels and noise for any number of
    them, the same losses but for rounding. Process 0 writes; a run may go on with another number. All must see `out`.
    A network's buffers are those of process 0.

    Args:
        model: torch.nn.Module, score = model(x, level), with `sigmas`, `shape` and `config()`, or a velocity model
            such as `CLDNet`; trained in place.
        data: a dataset of `langevin_ext.data`, or a float tensor (N, C, H, W), used as it is.
        out: folder of the run, empty, new, or that of a run to continue: checkpoint.safetensors (everything, every
            `save_every` steps), log.jsonl (a line every `log_every` steps) and, at the end, model.safetensors (the
            averaged weights).
        steps: total number of steps, those of the earlier calls included.
        batch_size: samples in a step, over all processes.
        lr: learning rate.
        ema, ema_warmup: see `EMA`; None trains without average.
        seed: integer in [0, 2^64).
        flip, dequantise: mirror at random; add the uniform noise of the 8-bit steps.
        grad_clip: largest norm of the gradient, or None.
        anneal_power: p of the weight sigma^p.
        precision: "fp32", or "bf16" for autocast (the weights, Adam and the loss stay float32).
        objective: "dsm", "ssm" or "ssm-vr" (see `langevin_ext.losses`); "hsm" for a velocity model, whose times take
            the place of the levels, uniform on (1e-5, 1), and whose log has a loss for each tenth of the time.
        noisy: ssm and ssm-vr alone: at x + sigma z; False: at the data as they are.
        progress: show a bar with rate, remaining time and running loss, or a line a minute where stderr is not a
            terminal. `out` has a status.json in any case (see `langevin-ext status`).
        tensorboard: also log to TensorBoard, where it is installed.
        resume: "auto" continues the run in `out` if there is one; True insists on it, False on a new one.
        callback: called after each step with {"step", "loss", "trainer"}.
        select_every: steps between measurements of the averaged network by the Frechet distance of its samples; the
            best is kept as best.safetensors, the table and its curve as selection.jsonl and selection.png.
        on_nan: "stop", or "skip" to leave out the steps whose loss or gradient is not finite: weights, Adam and average
            stay as they were, the step counts, and "skipped" in the log says how many there have been; a hundred in a
            row stop the run. May differ when a run goes on.
        select: how it is measured, a `Selection` or a dictionary of its arguments; by 1,000 samples against the
            training data in clipped pixels by default.
        accumulate: compute each process's part of a batch in so many pieces, for memory; only rounding differs.

    Returns:
        A copy of the network with the averaged weights, in eval mode.

    Raises:
        TypeError, ValueError: an argument is out of range, `out` holds something else or is in use by another process,
            or the run in it was made with another setting; nothing is overwritten.
        FloatingPointError: a loss or weight is not finite; names step, levels, samples and the last good checkpoint.
        OSError: a file cannot be written; what was written before is kept.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step at hand is finished and a last checkpoint written.
        ConnectionError: another process of the run has ended; a last checkpoint is written.

    Initial weights are the model's. All else depends on (seed, step, place in the batch).
    """
    settings = Settings(
        batch_size=batch_size,
        lr=lr,
        ema=ema,
        ema_warmup=ema_warmup,
        seed=seed,
        flip=flip,
        dequantise=dequantise,
        grad_clip=grad_clip,
        anneal_power=anneal_power,
        precision=precision,
        objective=objective,
        noisy=noisy,
    )
    if select is not None and select_every is None:
        raise ValueError("train: select needs select_every, the steps between measurements, got None")
    if select_every is not None and objective == "hsm":
        raise ValueError("train: select_every needs a model with noise levels, got objective 'hsm'")
    trainer = Trainer(model, data, settings, accumulate, on_nan)
    selector = None if select_every is None else Selector(select, select_every, trainer, progress)
    return run(
        trainer,
        out=out,
        steps=steps,
        save_every=save_every,
        log_every=log_every,
        progress=progress,
        tensorboard=tensorboard,
        resume=resume,
        callback=callback,
        selector=selector,
    )


def run(
    trainer, *, out, steps, save_every, log_every, progress, tensorboard, resume, callback, selector=None
) -> torch.nn.Module:
    """Takes `trainer` to `steps` steps in the folder `out`, from the beginning or from the run in it; see `train`."""
    steps, save_every = integer("steps", steps), integer("save_every", save_every)
    log_every = integer("log_every", log_every)
    with processes() as group, contextlib.ExitStack() as held:
        trainer.join(group)
        _open(trainer, Path(out), steps, resume, selector, held)
        board = log.Board(out, trainer.step, tensorboard and group.is_first)
        with deterministic(trainer.device), contextlib.closing(board):
            _run(trainer, Path(out), steps, save_every, log_every, board, progress, callback, selector)
        model = trainer.averaged()
        group.first(lambda: _finish(trainer, model, Path(out)))
    return model


def _open(trainer, out, steps, resume, selector, held):
    """Prepares the folder, locked until `held` is closed; takes over the run in it, or saves the first state."""
    group = trainer.share.group
    group.check_equal(
        json.dumps(state.settings(trainer)), "train: settings, network and data must be equal in all processes"
    )

    def prepare():
        held.enter_context(locked(state.folder(out, resume), "train: out"))
        return state.prepare(out, resume)

    found = bool(group.first(prepare))
    if found:
        state.restore(out, trainer)
        if trainer.step > steps:
            raise ValueError(f"train: steps must be at least {trainer.step}, those of the run in {out}, got {steps}")
    if selector is not None and group.is_first:
        selector.open(out)
    if not found:  # before any other file is there, by which a folder without a checkpoint would be refused
        group.first(lambda: state.save(out, trainer))
    elif trainer.step < steps:
        group.first(lambda: log.rewind(out, trainer.step))


def _run(trainer, out, steps, save_every, log_every, board, progress, callback, selector):
    """The loop: step, log, save, look whether to stop."""
    saved, running, group = trainer.step, None, trainer.share.group
    show, selector = progress and group.is_first, selector if group.is_first else None
    trainer.model.train()
    status = out / _progress.NAME if group.is_first else None
    bar = _progress.Progress(steps, "train", "step", initial=trainer.step, shown=show, status=status)
    try:
        with bar, Interruption() as interruption:
            if selector is not None and selector.due:  # what an interruption left undone
                selector.look(interruption.check)
            while trainer.step < steps:
                loss = trainer.update(stop=interruption.asked is not None)
                if math.isfinite(loss):  # not that of a step left out
                    running = loss if running is None else 0.95 * running + 0.05 * loss
                bar.update(note=None if running is None else f"loss {running:.4g}")
                if trainer.step % log_every == 0:
                    _log(trainer, out, board)
                    trainer.losses.reset()
                elif trainer.step == steps:
                    _log(trainer, out, board, partial=True)
                due = selector is not None and selector.due
                if trainer.step % save_every == 0 or trainer.step == steps or due:
                    saved = _save(trainer, out)
                if due:
                    selector.look(interruption.check)
                if callback is not None:
                    callback({"step": trainer.step, "loss": loss, "trainer": trainer})
                if group.size == 1 or trainer.stop:  # several processes stop after the same step
                    interruption.check(trainer.stop)
    except KeyboardInterrupt:
        if trainer.whole and trainer.step > saved:
            _save(trainer, out)
        raise
    except (FloatingPointError, LostProcess) as error:
        raise _ended(error, trainer, out, saved) from error


def _ended(error, trainer, out, saved) -> Exception:
    """What to raise for an error that ends the run, with the checkpoint to go on from."""
    group, path = trainer.share.group, out / state.CHECKPOINT
    if isinstance(error, FloatingPointError):
        message = f"train: {error}; the last good checkpoint is {path}, after {saved} steps"
        return group.agreed(FloatingPointError(message))
    if trainer.whole and trainer.step > saved and group.is_first:
        saved = _save(trainer, out)
    return group.lost(f"train: {error}; the same call goes on from {path}, after {saved} steps")


def _log(trainer, out, board, partial=False):
    if not trainer.share.group.is_first:
        return
    line = trainer.losses.line(trainer.step, round(trainer.seconds, 3)) | trainer.measures()
    if trainer.skipped:
        line["skipped"] = trainer.skipped
    board.add(line)
    log.append(out, {**line, "partial": True} if partial else line)


def _save(trainer, out):
    trainer.check_weights()
    if trainer.share.group.is_first:
        state.save(out, trainer)
        _progress.logger.debug("train: checkpoint after %d steps written to %s", trainer.step, out)
    return trainer.step


def _finish(trainer, model, out):
    """Writes the network for sampling, with where it comes from."""
    losses = log.read_log(out)["loss"].tolist() if (out / log.NAME).exists() else []
    loss = losses[-1] if losses else None
    state.publish(out / state.MODEL, trainer, model, loss=loss, **trainer.measures(final=True))


@contextlib.contextmanager
def deterministic(device):
    """On CUDA, gradients without atomics: without it two equal runs differ in the last digits."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("once", message=".*deterministic")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill
