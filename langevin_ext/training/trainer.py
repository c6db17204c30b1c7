"""One training step of a score network, as a function of what was there before and of the step's number alone.

    for step in range(steps):
        x     = the batch of the step                                   data order: a function of (seed, step)
        label ~ uniform on {0, ..., L-1}, one for each sample           noise stream LABELS
        loss  = mean_i objective(model, x, label)[i]                    noise streams of the objective
        Adam step; theta' <- m theta' + (1 - m) theta

The label is a noise level; for "hsm" it is a time in (0, 1).

Every random number is a function of (seed, step, place in the batch), so that a run has no hidden state.
"""

import copy
import hashlib
import math
import operator
import time
from dataclasses import asdict, dataclass

import torch

from . import log, parallel
from .ema import EMA
from .objective import OBJECTIVES, make_objective

__all__ = ["Settings", "Trainer"]


MAX_SKIPPED = 100  # steps in a row that on_nan="skip" leaves out


def integer(name, value, low=1, bits=32, function="train") -> int:
    """`value` as an int in [low, 2^bits)."""
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or not low <= number < 2**bits:
        raise ValueError(f"{function}: {name} must be an integer in [{low}, 2^{bits}), got {value!r}")
    return number


@dataclass(frozen=True)
class Settings:
    """The settings that define a run; see `train` for their meaning. A continued run must have the same."""

    batch_size: int = 128
    lr: float = 1e-3
    ema: float | None = 0.999
    ema_warmup: bool = False
    seed: int = 0
    flip: bool = False
    dequantise: bool = True
    grad_clip: float | None = None
    anneal_power: float = 2.0
    precision: str = "fp32"
    objective: str = "dsm"
    noisy: bool = True

    def __post_init__(self):
        object.__setattr__(self, "batch_size", integer("batch_size", self.batch_size))  # the dataclass is frozen
        object.__setattr__(self, "seed", integer("seed", self.seed, 0, 64))
        if not 0 < self.lr < math.inf:
            raise ValueError(f"train: lr must be positive and finite, got {self.lr}")
        if self.grad_clip is not None and not self.grad_clip > 0:
            raise ValueError(f"train: grad_clip must be positive or None, got {self.grad_clip}")
        if not math.isfinite(self.anneal_power):
            raise ValueError(f"train: anneal_power must be finite, got {self.anneal_power}")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"train: precision must be 'fp32' or 'bf16', got {self.precision!r}")
        object.__setattr__(self, "objective", str(self.objective).replace("_", "-"))  # as the losses are named, too
        if self.objective not in OBJECTIVES:
            raise ValueError(f"train: objective must be one of {', '.join(OBJECTIVES)}, got {self.objective!r}")
        if not self.noisy and not OBJECTIVES[self.objective].noise_is_optional:
            raise ValueError(f"train: noisy=False needs the objective ssm, ssm-vr or ism, got {self.objective!r}")


class TensorData:
    """A float tensor (N, C, H, W) as training data, taken as it is: neither dequantised nor flipped."""

    flips, content = False, "a tensor"

    def __init__(self, tensor):
        if not tensor.is_floating_point() or tensor.dim() != 4 or not len(tensor):
            raise ValueError(
                "train: data must be a dataset or a float tensor (N, C, H, W),"
                f" got {tensor.dtype} {tuple(tensor.shape)}"
            )
        self.tensor, self.shape = tensor.detach().cpu(), tuple(tensor.shape[1:])
        content = self.tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        self.fingerprint = hashlib.sha256(repr(tuple(tensor.shape)).encode() + content.tobytes()).hexdigest()

    def __len__(self):
        return len(self.tensor)

    def batch(self, indices, *, seed, step, first=0, flip=False, dequantise=True):
        return self.tensor[indices]


class Trainer:
    """A run in memory: network, optimiser, average, and the number of steps taken.

    Args:
        model: torch.nn.Module, score = model(x, level), with `sigmas`, `shape` and `config()`, or for the objective
            "hsm" score in v = model(u, t) with `process` in the place of `sigmas`; trained in place.
        data: a dataset (`len`, `shape`, `fingerprint`, `batch`) or a float tensor (N, C, H, W).
        settings: `Settings`.
        accumulate: pieces in which a batch is computed one after the other; they change rounding and memory alone.
        on_nan: "stop" or "skip", what `update` does about a loss or gradient that is not finite.

    Raises:
        TypeError, ValueError: the model has no config() or not what the objective needs, or differs from the data in
            shape.
    """

    unit = "level"  # what a label is called in messages

    def __init__(self, model, data, settings, accumulate=1, on_nan="stop"):
        if on_nan not in ("stop", "skip"):
            raise ValueError(f"train: on_nan must be 'stop' or 'skip', got {on_nan!r}")
        data = TensorData(data) if torch.is_tensor(data) else data
        if settings.flip and not getattr(data, "flips", True):
            raise ValueError(f"train: flip must be False for data given as {data.content}, got True")
        if not callable(getattr(model, "config", None)):
            raise TypeError(
                f"train: model must have config(), a dictionary that rebuilds it, got {type(model).__name__}"
            )
        self.model, self.data, self.fingerprint = model, data, data.fingerprint
        self._settings, self.settings = settings, asdict(settings)
        self.levels = self.check()
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError(f"train: model must have trainable parameters, got {type(model).__name__} without any")
        self.device = next(iter(self.parameters.values())).device
        self.optimizer = torch.optim.Adam(self.parameters.values(), settings.lr, (0.9, 0.999), eps=1e-8, fused=True)
        self.ema = None if settings.ema is None else EMA(model, settings.ema, settings.ema_warmup)
        self.losses = log.LevelLoss(self.levels, self.device)
        self.step, self.seconds, self.whole, self.stop = 0, 0.0, True, False
        self.on_nan, self.skipped, self.skipped_in_a_row = on_nan, 0, 0
        self.accumulate = integer("accumulate", accumulate)
        self.share = parallel.alone(settings.batch_size, self.accumulate)

    def join(self, group) -> None:
        """Makes this the trainer of one of several processes: its part of each batch, the weights of process 0."""
        self.share = parallel.Share(group, self._settings.batch_size, self.accumulate)
        for value in [*self.model.state_dict().values(), *(self.ema.average.values() if self.ema else ())]:
            group.copy_first(value)

    def check(self) -> int:
        """The number of rows of the log's table, once the model is known to fit the data and the objective."""
        shape, data = tuple(self.model.shape), tuple(self.data.shape)
        if data != shape:
            raise ValueError(f"train: data must have the model's shape {shape}, got {data}")
        self.objective = make_objective(self.model, self._settings)
        self.unit = self.objective.unit
        return self.objective.bins

    def loss(self, x, label, first=0) -> torch.Tensor:
        """The loss (B,) of samples of the current step, from place `first` of its batch on."""
        return self.objective(x, label, self.step, first)

    def measures(self, *, final=False) -> dict:
        """What else to say of the averaged network, for a line of the log or, at the end, the file's metadata."""
        return {}

    def labels(self) -> torch.Tensor:
        """The noise level, or the time, of each sample of the current step (B,)."""
        return self.objective.draw(self.step, self.device)

    def bins(self, label) -> torch.Tensor:
        """The row (B,) of the log's table for each label."""
        return self.objective.bin(label)

    def indices(self) -> torch.Tensor:
        """The dataset indices (B,) of the current step."""
        from ..data import indices_for

        return indices_for(self.step, self._settings.batch_size, len(self.data), self._settings.seed)

    def inputs(self, indices, first=0) -> torch.Tensor:
        """The data (B, C, H, W) of these indices, which begin at place `first` of the batch."""
        s = self._settings
        x = self.data.batch(indices, seed=s.seed, step=self.step, first=first, flip=s.flip, dequantise=s.dequantise)
        return x.to(self.device)

    def batch(self):
        """The data (B, C, H, W), labels (B,) and dataset indices (B,) of the current step."""
        indices = self.indices()
        return self.inputs(indices), self.labels(), indices

    def update(self, *, stop=False) -> float:
        """One training step; returns its mean loss over all processes, NaN for a step left out.

        Args:
            stop: this process wants to stop; afterwards the attribute `stop` says whether any does.

        Raises:
            FloatingPointError: the loss is not finite, and `on_nan` is "stop" or it has been so for `MAX_SKIPPED` steps
                in a row; the weights are still those before the step.
            LostProcess: another process has ended; the weights are still those before the step.
        """
        began, s = time.perf_counter(), self._settings
        loss, label, indices = self._gradients()
        self.stop = self.share.gather(loss, stop)
        mean = loss.mean().item()  # waits once, after the backward pass has been queued
        if self.on_nan == "skip" and not (math.isfinite(mean) and self._gradient_is_finite()):
            self._skip(loss, label, indices)
            self.seconds += time.perf_counter() - began
            return math.nan
        if not math.isfinite(mean):
            self._refuse(loss, label, indices)
        self.whole = False  # from here to the end of the step, an interruption leaves a state that must not be saved
        if s.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), s.grad_clip)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model)
        self.losses.add(self.bins(label), loss)
        self.step += 1
        self.whole, self.skipped_in_a_row = True, 0
        self.seconds += time.perf_counter() - began
        return mean

    def _gradients(self):
        """Leaves the gradient of the mean loss over the whole batch in the parameters.

        Returns:
            (losses (B,) float64, zero for the parts of other processes, labels (B,), dataset indices (B,)).
        """
        s, label, indices = self._settings, self.labels(), self.indices()
        losses = torch.zeros(s.batch_size, dtype=torch.float64, device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        for low, high in self.share.pieces:
            x = self.inputs(indices[low:high], low)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bf16"):
                loss = self.loss(x, label[low:high], low)
            (loss.sum() / s.batch_size).backward()
            losses[low:high] = loss.detach()
        self.share.add_gradients(list(self.parameters.values()))
        return losses, label, indices

    def _gradient_is_finite(self) -> bool:
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        return bool(torch.stack(torch._foreach_norm(gradients, math.inf)).isfinite().all()) if gradients else True

    def _skip(self, loss, label, indices):
        """Counts the step without taking it."""
        if self.skipped_in_a_row >= MAX_SKIPPED - 1:
            self._refuse(loss, label, indices, f", the {MAX_SKIPPED}th such step in a row")
        self.step, self.skipped, self.skipped_in_a_row = self.step + 1, self.skipped + 1, self.skipped_in_a_row + 1

    def _refuse(self, loss, label, indices, more=""):
        bad = (~loss.isfinite()).nonzero().flatten()
        bad = bad if len(bad) else torch.arange(len(loss), device=loss.device)  # finite losses whose sum is not
        labels = sorted(set(label[bad].tolist()))
        raise FloatingPointError(
            f"loss is not finite at step {self.step}, {self.unit} {_some(labels)},"
            f" sample {_some(indices[bad.cpu()].tolist())} of the data{more}"
        )

    def check_weights(self) -> None:
        """Raises FloatingPointError if a weight is not finite (an overflow in the last gradient)."""
        norms = torch._foreach_norm([p.detach() for p in self.parameters.values()], math.inf)
        bad = (~torch.stack(norms).isfinite()).tolist()
        if any(bad):
            names = [name for name, is_bad in zip(self.parameters, bad, strict=True) if is_bad]
            raise FloatingPointError(f"weights are not finite after step {self.step - 1}: {_some(names)}")

    def averaged(self) -> torch.nn.Module:
        """A copy of the network in eval mode with the averaged weights (the current ones without EMA)."""
        model = copy.deepcopy(self.model)
        if self.ema is not None:
            model.load_state_dict(self.ema.state_dict())
        model.data_fingerprint = self.fingerprint
        return model.eval()


def _some(values):
    """The first values of a list, for a message."""
    return ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
