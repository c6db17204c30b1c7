"""Runs langevin_ext's ops on the emulated CUDA kernels, under several orders of threads and blocks."""

import contextlib
import ctypes

import torch

from langevin_ext import _native

SCHEDULES = (("forward", 0), ("reverse", 0), ("round", 0), ("random", 1), ("random", 2))
MARGIN = 1 << 16
POISON = 0xFF  # NaN in every float type, -1 in every integer


class GuardedCore:
    """The emulated module as `_native.core` would return it.

    Every tensor of a call lies in memory of its own with POISON on both sides, at its old offset from a multiple of 64
    bytes: what a kernel reads outside is NaN, what it writes there raises. float64 is for the CPU, as on a GPU.
    """

    def __init__(self, module):
        self._module = module
        self.calls = []

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
            if tensors[0].dtype == torch.float64:
                return getattr(_native._core, name)(*arguments)
            guarded = {key_of(t): Guarded(t) for t in tensors if t.numel()}
            moved = [guarded[key_of(a)].inside if isinstance(a, torch.Tensor) and a.numel() else a for a in arguments]
            result = getattr(self._module, name)(*moved)
            for copy in guarded.values():
                copy.finish(name)
            return result

        return call


def key_of(tensor):
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tuple(tensor.stride())


class Guarded:
    """A copy of a tensor between two margins, byte for byte and without the dispatcher."""

    def __init__(self, tensor):
        self.outside = tensor
        elements = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        self.begin = MARGIN + tensor.data_ptr() % 64
        self.end = self.begin + elements * tensor.element_size()
        self.bytes = torch.full((self.end + MARGIN,), POISON, dtype=torch.uint8)
        ctypes.memmove(self.bytes.data_ptr() + self.begin, tensor.data_ptr(), self.end - self.begin)
        self.inside = self.bytes[self.begin : self.end].view(tensor.dtype).as_strided(tensor.shape, tensor.stride())

    def finish(self, name):
        if bool((self.bytes[: self.begin] != POISON).any() | (self.bytes[self.end :] != POISON).any()):
            raise AssertionError(f"{name} wrote outside a tensor of shape {tuple(self.outside.shape)}")
        ctypes.memmove(self.outside.data_ptr(), self.bytes.data_ptr() + self.begin, self.end - self.begin)


class Emulation:
    """The emulated kernels; outside `active` the ops run as they always do."""

    def __init__(self, module):
        self.module = module
        self.core = GuardedCore(module)

    @contextlib.contextmanager
    def active(self, schedule="forward", seed=0):
        """Ops on CPU tensors run on the emulated kernels, and new memory is NaN."""
        self.module.set_schedule(schedule, seed)
        usual, mode = _native.core, torch.get_deterministic_debug_mode()
        _native.core = lambda device: self.core
        torch.set_deterministic_debug_mode("warn")  # fills torch.empty
        try:
            yield self
        finally:
            _native.core = usual
            torch.set_deterministic_debug_mode(mode)

    def run(self, function):
        """function() under every schedule: its tensors, which must be the same bits each time."""
        first = None
        for schedule, seed in SCHEDULES:
            self.core.calls.clear()
            with self.active(schedule, seed):
                result = function()
            assert self.core.calls, "the op did not reach the emulated kernels"
            first = result if first is None else first
            for one, other in zip(first, result, strict=True):
                assert same_bits(one, other), f"schedule {schedule} {seed} gives other values than {SCHEDULES[0][0]}"
        return first


def same_bits(a, b):
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(integer), b.contiguous().view(integer))
