"""Whether torch differentiates or maps in a way that what is registered with torch.library has no part in."""

import torch
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether a transform of torch.func (grad, jvp, vmap, ...) or a level of forward-mode derivatives is at work.

    What is registered with torch.library does not take part in those: torch refuses `torch.func.grad`, and leaves out
    tangents without a word, also those that reach a backward pass alone or a compiled function. The ops that have
    derivatives run in plain torch then, the others refuse.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
