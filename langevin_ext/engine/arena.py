"""Buffers that an engine uses over and over, so that a forward pass allocates nothing."""

from math import prod

import torch

KEPT = 4  # free buffers of one shape; oneDNN's own outputs come in too, and would pile up


class Arena:
    """Channels-last tensors of one dtype by shape; `take` one, and `give` it back once nobody reads it any more.

    Attributes:
        threads: torch's number of threads, for the kernels of one pass.
    """

    def __init__(self, dtype):
        self.dtype, self.threads = dtype, 1
        self._free: dict[tuple, list[torch.Tensor]] = {}
        self._scratch = torch.empty(0)

    def take(self, shape) -> torch.Tensor:
        """A buffer (B, C, H, W) with anything in it."""
        free = self._free.get(tuple(shape))
        return free.pop() if free else torch.empty(shape, dtype=self.dtype, memory_format=torch.channels_last)

    def give(self, *buffers) -> None:
        for buffer in buffers:
            free = self._free.setdefault(tuple(buffer.shape), [])
            if len(free) < KEPT:
                free.append(buffer)

    def scratch(self, size) -> torch.Tensor:
        """At least `size` floats that are free until the next call."""
        if self._scratch.numel() < size:
            self._scratch = torch.empty(size)
        return self._scratch

    def clear(self) -> None:
        """Frees what nobody has."""
        self._free, self._scratch = {}, torch.empty(0)

    @property
    def bytes(self) -> int:
        """In free buffers and scratch."""
        buffers = [prod(shape) * len(free) * self.dtype.itemsize for shape, free in self._free.items()]
        return sum(buffers) + 4 * self._scratch.numel()
