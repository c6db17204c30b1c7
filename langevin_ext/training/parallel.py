"""Data-parallel training: each process takes its part of the global batch, and all take the same step.

    gradient = sum over processes of  sum_{i in part} grad loss_i / B        B the size of the global batch

The data order, the labels and the noise of sample i are functions of (seed, step, i), i the place in the global batch,
so that any number of processes draws the same; the parts may differ in size, since samples are weighted, not parts.
"""

import torch

from .._group import Group

__all__ = ["Share"]


class Share:
    """The part of each global batch that is this process's, and the sums over all parts.

    Args:
        group: `Group`.
        batch_size: of the global batch.
        accumulate: pieces in which the part is computed one after the other, for memory.

    Attributes:
        pieces: list of (low, high), places in the global batch; empty if there are more processes than samples.
    """

    def __init__(self, group, batch_size, accumulate=1):
        self.group, self.batch_size = group, batch_size
        low, high = (bound * batch_size // group.size for bound in (group.rank, group.rank + 1))
        count = min(accumulate, high - low)
        bounds = [low + i * (high - low) // count for i in range(count + 1)] if count else []
        self.pieces = list(zip(bounds, bounds[1:], strict=False))

    def add_gradients(self, parameters) -> None:
        """Replaces each gradient by its sum over all processes; one that none of them has stays None."""
        if self.group.size == 1:
            return
        present = torch.tensor([float(p.grad is not None) for p in parameters])
        self.group.add_up(present)
        used = [p for p, count in zip(parameters, present.tolist(), strict=True) if count]
        for dtype in dict.fromkeys(p.dtype for p in used):
            chosen = [p for p in used if p.dtype == dtype]
            for p in chosen:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            flat = torch.cat([p.grad.reshape(-1) for p in chosen])
            self.group.add_up(flat)
            for p, total in zip(chosen, flat.split([p.numel() for p in chosen]), strict=True):
                p.grad.copy_(total.view_as(p))

    def gather(self, losses, stop) -> bool:
        """Fills in the losses (B,) of the other processes, zero here, and says whether any wants to stop."""
        if self.group.size == 1:
            return stop
        told = torch.cat([losses.cpu(), losses.new_tensor([float(stop)], device="cpu")])
        self.group.add_up(told)  # each place has one process that is not zero: the sum is exact
        losses.copy_(told[:-1])
        return bool(told[-1])


def alone(batch_size, accumulate=1) -> Share:
    """The share of a process that trains alone: everything."""
    return Share(Group(), batch_size, accumulate)
