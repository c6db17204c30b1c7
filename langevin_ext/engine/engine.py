"""What `choice.build` makes."""

import math
import threading
import warnings

import torch

from .. import _native, captures
from .._transforms import transformed
from .network import Network
from .served import named, versions, why_not


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
            raise TypeError(f"engine: x must be float32 on {named(self.device)}, got {x.dtype} on {x.device}")
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
            if self._seen != (seen := versions(self.model)):
                self.refresh()
                self._seen = seen
            return self._network

    @torch.inference_mode()
    def refresh(self) -> None:
        """Reads the weights of the model; raises as `network`."""
        device, reason = next(self.model.parameters()).device, why_not(self.model)
        if reason or device != self.device:
            reason = reason or f"it is on {named(device)}"
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
