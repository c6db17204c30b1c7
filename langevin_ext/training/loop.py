"""`train`: a run is a folder that can be stopped at any moment and continued exactly."""

import contextlib
import importlib.metadata
import signal
import threading
import warnings
from pathlib import Path

import torch
from tqdm import tqdm

from . import checkpoint, log, state
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
    progress=True,
    tensorboard=True,
    resume="auto",
    callback=None,
) -> torch.nn.Module:
    """Trains a score network by denoising score matching as NCSN does (Song & Ermon 2019, arXiv:1907.05600, section 4).

        Adam(lr, beta .9 .999, eps 1e-8) on mean_i 1/2 sigma_i^(p-2) |sigma_i s(x_i + sigma_i z_i, level_i) + z_i|^2

    A run of 2k steps equals one of k steps that is called again with steps=2k, bit for bit on one device with one
    number of threads; so does a run that was killed.

    Args:
        model: torch.nn.Module, score = model(x, level), with `sigmas`, `shape` and `config()`; trained in place.
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
        progress: show a bar with rate, remaining time and running loss.
        tensorboard: also log to TensorBoard, where it is installed.
        resume: "auto" continues the run in `out` if there is one; True insists on it, False on a new one.
        callback: called after each step with {"step", "loss", "trainer"}.

    Returns:
        A copy of the network with the averaged weights, in eval mode.

    Raises:
        TypeError, ValueError: an argument is out of range, `out` holds something else, or the run in it was made with
            another setting; nothing is overwritten.
        FloatingPointError: a loss or weight is not finite; names step, levels, samples and the last good checkpoint.
        KeyboardInterrupt: after the step at hand is finished and a last checkpoint written.

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
    )
    steps, save_every = integer("steps", steps), integer("save_every", save_every)
    log_every = integer("log_every", log_every)
    trainer, out = Trainer(model, data, settings), Path(out)
    if state.prepare(out, resume):
        state.restore(out, trainer)
        if trainer.step > steps:
            raise ValueError(f"train: steps must be at least {trainer.step}, those of the run in {out}, got {steps}")
        if trainer.step < steps:
            log.rewind(out, trainer.step)
    else:
        state.save(out, trainer)
    with _deterministic(trainer.device), contextlib.closing(log.Board(out, trainer.step, tensorboard)) as board:
        _run(trainer, out, steps, save_every, log_every, board, progress, callback)
    return _finish(trainer, out)


def _run(trainer, out, steps, save_every, log_every, board, progress, callback):
    """The loop: step, log, save, look whether to stop."""
    saved, running = trainer.step, None
    trainer.model.train()
    bar = tqdm(total=steps, initial=trainer.step, disable=not progress, unit="step", desc="train", dynamic_ncols=True)
    try:
        with bar, _Interruption() as interruption:
            while trainer.step < steps:
                loss = trainer.update()
                running = loss if running is None else 0.95 * running + 0.05 * loss
                bar.set_postfix_str(f"loss {running:.4g}", refresh=False)
                bar.update()
                if trainer.step % log_every == 0:
                    _log(trainer, out, board)
                    trainer.losses.reset()
                elif trainer.step == steps:
                    _log(trainer, out, board, partial=True)
                if trainer.step % save_every == 0 or trainer.step == steps:
                    saved = _save(trainer, out)
                if callback is not None:
                    callback({"step": trainer.step, "loss": loss, "trainer": trainer})
                interruption.check()
    except KeyboardInterrupt:
        if trainer.whole and trainer.step > saved:
            _save(trainer, out)
        raise
    except FloatingPointError as error:
        raise FloatingPointError(
            f"train: {error}; the last good checkpoint is {out / state.CHECKPOINT}, after {saved} steps"
        ) from error


def _log(trainer, out, board, partial=False):
    line = trainer.losses.line(trainer.step, round(trainer.seconds, 3))
    board.add(line)
    log.append(out, {**line, "partial": True} if partial else line)


def _save(trainer, out):
    trainer.check_weights()
    state.save(out, trainer)
    return trainer.step


def _finish(trainer, out):
    """Writes the network for sampling, with where it comes from, and returns it."""
    model = trainer.averaged()
    try:
        version = importlib.metadata.version("langevin_ext")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    history = log.read_log(out) if (out / log.NAME).exists() else {"loss": []}
    metadata = {
        "steps": trainer.step,
        "settings": trainer.settings,
        "data": trainer.fingerprint,
        "data_name": getattr(trainer.data, "name", "tensor"),
        "loss": float(history["loss"][-1]) if len(history["loss"]) else None,
        "langevin_ext": version,
        "torch": torch.__version__,
    }
    averaged = trainer.ema is not None
    checkpoint.save(
        out / state.MODEL, model, ema=model.state_dict() if averaged else None, raw=not averaged, metadata=metadata
    )
    return model


class _Interruption:
    """Ctrl-C waits for the end of the step, so that what is saved is the state of a whole one; a second does not."""

    def __init__(self):
        self.asked, self.previous = False, None

    def __enter__(self):
        # only the main thread may set handlers, and a process that ignores Ctrl-C goes on doing so
        if threading.current_thread() is threading.main_thread() and (
            signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None)
        ):
            self.previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_):
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)

    def _ask(self, *_):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def check(self):
        if self.asked:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _deterministic(device):
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
