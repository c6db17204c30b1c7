"""`build` and what it makes."""

import math
import threading
import warnings
import weakref

import torch

from .. import _native, captures
from .._transforms import transformed
from ..models.ncsn import NCSN, NCSNv2
from .arena import Arena
from .channels_last import Fresh, GpuForms
from .convolutions import CpuForms, why_int16_is_slow, why_not_int16, why_not_packed, why_not_winograd
from .network import Network
from .precisions import DTYPES, ON_CPU, ON_GPU, PRECISIONS, difference, finite

WIDE = 64  # channels, from which on a CPU's products are worth 16-bit factors
ALLOWED = 0.01  # of the score: "auto" takes no 16-bit factors with a larger error
_differences: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # of networks whose weights are as they were


class Engine:
    """score = engine(x, level), what model(x, level) is up to rounding; float32 in and out, no gradient.

    The weights are read at the first call, and again at the first call after a parameter or buffer of the model was
    replaced or changed in place (by an optimiser, `load_state_dict`, an average's `copy_`). torch does not count
    changes through `.data` or of inference tensors: call `refresh` after those. Threads take turns.

    Args:
        model, precision, batch: as for `build`.
        notes: the first of them.
        forms: of the convolutions, see `network`.
        arena: for its buffers.

    Attributes:
        model: the network.
        shape, sigmas: the model's.
        device: of the model when the engine was built.
        precision: "fp32", "tf32", "fp16", "bf16" or "int16".
        notes: list of sentences: what was chosen and why, what could not be used and why not; on a GPU which kernels
            normalise a batch of the size that was measured last.
        steps: what `samplers.graphs` has captured of it.
    """

    def __init__(self, model, precision, notes, batch, forms, arena):
        self.model, self.precision, self.notes = model, precision, notes
        self.device, self.steps = next(model.parameters()).device, {}
        self._forms, self._arena, self._batch = forms, arena, batch
        self._network, self._seen, self._lock = None, None, threading.RLock()
        self._about, self._settled = list(notes), set()

    def __reduce__(self):
        raise TypeError("engine: an engine cannot be copied or pickled, its buffers belong to it; build another")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.model.shape

    @property
    def sigmas(self) -> torch.Tensor:
        """(L,)."""
        return self.model.sigmas

    def __call__(self, x, level) -> torch.Tensor:
        """The score at noise level sigmas[level].

        Args:
            x: (B, C, H, W) float32 on the engine's device.
            level: (B,) int64 in [0, L); on a GPU nobody looks, and a sample with another level becomes NaN.

        Returns:
            (B, C, H, W) like x.

        Raises:
            ValueError, TypeError: x or level of another shape or type, x requires grad, or a derivative is wanted by
                torch.func or in forward mode.
        """
        self.model.check_input(x, level)
        self._check_level(level)
        return self._features(x, level)

    def _check_level(self, level):
        """On the CPU; on a GPU it would have to wait."""
        levels = len(self.model.sigmas)
        if level.device.type == "cpu" and len(level) and not 0 <= int(level.min()) <= int(level.max()) < levels:
            raise ValueError(f"engine: level must be in [0, {levels}), got {int(level.min())} to {int(level.max())}")

    def _features(self, x, level):
        """The network's last convolution: (B, C, H, W)."""
        if x.dtype != torch.float32 or x.device != self.device:
            raise TypeError(f"engine: x must be float32 on {_named(self.device)}, got {x.dtype} on {x.device}")
        if (x.requires_grad and torch.is_grad_enabled()) or transformed():
            raise ValueError(
                "engine: x must not require grad, nor be within torch.func or a level of forward-mode derivatives: an "
                "engine has no derivative; call the network itself"
            )
        if not len(x):
            return torch.empty_like(x)
        if len(x) == self._batch:  # as before, or as expected
            self.prepare(len(x))
        with self._lock, torch.inference_mode(), torch.autocast(self.device.type, enabled=False), self._forms.around():
            network = self.network()
            if len(x) != self._batch:
                self._arena.clear()
                self._batch = len(x)
            self._arena.threads = torch.get_num_threads()
            y = network(x, self._arena, level)
        return y if torch.is_inference_mode_enabled() else y.clone()  # the clone may be written to everywhere

    def prepare(self, batch) -> None:
        """Makes the engine ready for batches of this size, which costs time at the first call for a size alone.

        On a GPU with several forms of the norms' kernels the fastest is found by measurement, 50 ms or less for each of
        the network's three or so shapes (`ops.norm_forms`). Never during a capture. Not needed: a second call with
        batches of one size does so itself, and so does the first with the size that the engine was built for.
        """
        if batch in self._settled or captures.under_way(self.device):
            return
        self.network()
        self._settled.add(batch)
        try:  # without the lock, which a thread that captures may wait for
            self.notes = [*self._about, *self._forms.settle_norms(batch, self.device)]
        except RuntimeError as error:
            reason = f"not measured for batches of {batch} ({str(error).splitlines()[0]})"
            self.notes = [*self._about, f"norms by two kernels: {reason}"]
            warnings.warn(f"engine: {self.notes[-1]}", _native.SlowerPathWarning, stacklevel=3)

    def network(self) -> Network:
        """What the engine computes with: the weights as they are now.

        Raises:
            ValueError: the model has moved to another device, or has another dtype.
            RuntimeError: the weights have changed, and a graph is being captured.
        """
        with self._lock:
            if self._seen != (seen := _versions(self.model)):
                self.refresh()
                self._seen = seen
            return self._network

    @torch.inference_mode()
    def refresh(self) -> None:
        """Reads the weights of the model; raises as `network`."""
        device, reason = next(self.model.parameters()).device, why_not(self.model)
        if reason or device != self.device:
            reason = reason or f"it is on {_named(device)}"
            raise TypeError(
                f"engine: model must be as it was when the engine was built, {reason}; build another engine"
            )
        if captures.under_way(self.device):
            raise RuntimeError(
                "engine: the weights must be read before a graph is captured, call the engine once before"
            )
        with self._lock, torch.autocast(self.device.type, enabled=False):
            self._network = Network(self.model, self._forms, max(1, self._batch))
        if self.device.type == "cuda":  # other threads may compute on other streams
            torch.cuda.current_stream(self.device).synchronize()

    def free(self) -> None:
        """Gives back the memory between its layers and of captured steps; the next call takes what it needs."""
        with self._lock:
            self._arena.clear()
            self.steps.clear()

    def __str__(self) -> str:
        return "; ".join(self.notes)


class SigmaEngine(Engine):
    """The engine of an `NCSNv2`, for any noise level."""

    def __call__(self, x, level) -> torch.Tensor:
        """As `Engine`."""
        self.model.check_input(x, level)
        self._check_level(level)
        sigmas, inside = self.model.sigmas, level.clamp(0, len(self.model.sigmas) - 1)
        return self.at_sigma(x, sigmas[inside].masked_fill(level != inside, math.nan))  # a wrong index ends the process

    def at_sigma(self, x, sigma) -> torch.Tensor:
        """The score at any noise level: x (B, C, H, W), sigma a positive number or (B,) -> (B, C, H, W)."""
        if torch.is_tensor(sigma) and sigma.dim():
            sigma = sigma.to(x).view(-1, 1, 1, 1)
        return self._features(x, None) / sigma


def build(model, *, precision="auto", device=None, batch=16) -> Engine:
    """The engine of a network.

    "auto" is the fastest whose error is far below the noise of a sampler's own steps: on the CPU int16 for networks of
    at least 64 channels, where it is faster and a few scores differ from those in fp32 by at most 1 %, else fp32; on
    a GPU fp16, or bf16 where a few scores are not finite in fp16. The notes say which and why (docs/performance.md has
    the measurements).

    Args:
        model: `NCSN` or `NCSNv2` with float32 parameters.
        precision: "auto" or "fp32"; on the CPU "int16", factors of the products of F(4x4, 3x3) in 16-bit fixed point
            with scales of their own for each tile, and exact sums, for CPUs with AVX2; "bf16"; on a GPU also
            "fp16" and "tf32". In bf16 and fp16 weights and activations between the first and last convolution have that
            type; in "tf32" all convolutions round their inputs to TF32, in no other does any. The error in the score is
            about 1 % in bf16, 0.2 % in fp16 and int16 (there more where a channel is 100 times as large as others).
        device: None, or the model's.
        batch: about how many images come at a time.

    Raises:
        TypeError, ValueError: there is no engine for this model, device or precision; the message says why.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"engine: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    reason = why_not(model)
    if reason:
        raise TypeError(f"engine: model must be a float32 NCSN or NCSNv2 on the CPU or a GPU; {reason}")
    own = next(model.parameters()).device
    given = own if device is None else torch.device(device)
    if given.type != own.type or given.index not in (None, own.index):
        raise ValueError(f"engine: device must be the model's, {_named(own)}, got {given}")
    if own.type != "cpu":
        return _on_gpu(model, precision, batch)
    if precision not in ON_CPU:
        raise ValueError(f"engine: precision must be one of {', '.join(ON_CPU)} on the CPU, got {precision!r}")
    if precision == "bf16" and not bf16_runs():
        raise ValueError("engine: precision must be 'fp32' or 'auto' here, this CPU has no bfloat16 arithmetic")
    if precision == "int16" and (reason := why_not_int16()):
        raise ValueError(f"engine: precision must be 'fp32' or 'auto' here, {reason}")
    return _fastest_on_cpu(model, batch) if precision == "auto" else _on_cpu(model, precision, batch)


def _on_cpu(model, precision, batch, notes=()):
    forms, notes = CpuForms(precision), [*_notes(model, precision), *notes]
    return _kind(model)(model, precision, notes, batch, forms, Arena(forms.dtype))


def _fastest_on_cpu(model, batch):
    """int16 where it is fast, the products take most of the time and this network is not one that it spoils; else fp32.

    A tile's channels share a scale: where some are hundreds of times as large as the others, and weights make up for
    that, the others are lost.
    """
    exact = _on_cpu(model, "fp32", batch)
    if model.ngf < WIDE or why_not_int16() or why_not_winograd(model.res1[0].conv1, *model.shape[1:], "int16"):
        return exact
    if reason := why_int16_is_slow():
        exact.notes.append(f"fp32 for int16: {reason}")
        return exact
    fast = _on_cpu(model, "int16", batch)
    seen = _versions(model)
    if _differences.get(model, (None, None))[0] != seen:
        _differences[model] = seen, difference(fast, exact)
    error = _differences[model][1]
    if not error <= ALLOWED:  # or not finite
        exact.notes.append(f"fp32 for int16, in which scores of its starting points are off by {100 * error:.2g} %")
        return exact
    return fast


def gpu_form(model, precision, batch=16, notes=()) -> Engine:
    """The engine in the form for a GPU, on whatever device the model is."""
    forms, device = GpuForms(DTYPES[precision], tf32=precision == "tf32"), next(model.parameters()).device
    text = [f"GPU engine in {precision}, channels-last", *notes]
    return _kind(model)(model, precision, text, batch, forms, Fresh(forms.dtype, device))


def _on_gpu(model, precision, batch):
    if precision not in ON_GPU:
        raise ValueError(f"engine: precision must be one of {', '.join(ON_GPU)} on a GPU, got {precision!r}")
    if precision != "auto":
        return gpu_form(model, precision, batch)
    fast = gpu_form(model, "fp16", batch)
    if finite(fast):
        return fast
    return gpu_form(model, "bf16", batch, ["bf16 for fp16, in which scores of its starting points are not finite"])


def _kind(model):
    return SigmaEngine if isinstance(model, NCSNv2) else Engine


def _named(device):
    return "the CPU" if device.type == "cpu" else str(device)


def why_not(model) -> str:
    """Why there is no engine for a model, "" where there is one."""
    if type(model) not in (NCSN, NCSNv2):
        return f"it is {type(model).__name__}"
    found = {(p.dtype, p.device) for p in model.parameters()}
    dtype, device = next(iter(found))
    if len(found) > 1 or dtype != torch.float32 or device.type not in ("cpu", "cuda"):
        return "its parameters are " + ", ".join(sorted(f"{dtype} on {device}" for dtype, device in found))
    if any(m._forward_hooks or m._forward_pre_hooks or hasattr(m, "parametrizations") for m in model.modules()):
        return "it has hooks or parametrizations, which an engine would pass by"
    if _native.core(device) is None:
        reason = f": {_native.why_no_cuda(device.index or 0)}" if device.type == "cuda" else ""
        return f"the native core does not run{reason} (see langevin_ext.backend_info)"
    return ""


def bf16_runs() -> bool:
    """Whether oneDNN computes in bfloat16 here."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _notes(model, precision):
    """What an engine on the CPU does and why."""
    convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    reasons = {why_not_winograd(conv, *model.shape[1:], precision) for conv in convs if conv.in_channels == model.ngf}
    notes = [f"CPU engine in {precision}"]
    if "" in reasons:
        factors = " with 16-bit factors" if precision == "int16" else ""
        notes.append(f"3x3 convolutions by F(4x4, 3x3){factors} where the size allows")
    else:
        notes.append(f"no convolution by F(4x4, 3x3): {'; '.join(sorted(reasons))}")
    packed = why_not_packed(DTYPES[precision])
    notes.append(f"weights not repacked: {packed}" if packed else "the others with repacked weights")
    return notes


def _versions(model):
    """Identifies the parameters and buffers and counts their changes, as far as torch does."""
    return [
        (id(t), t.data_ptr(), -1 if t.is_inference() else t._version) for t in (*model.parameters(), *model.buffers())
    ]
