"""The convolutions of an engine on a GPU: cuDNN's, channels-last, with the weights cast once; and its memory.

Nothing here asks on which device it is. torch offers cuDNN's sum of two branches only with a ReLU behind it, and adds a
bias in a pass of its own, so the convolutions add neither: who reads their results does, mostly a norm. Only the first
and the last add their bias.
"""

import contextlib
import threading

import torch
import torch.nn.functional as F

from ..ops import norm_forms
from .convolutions import Pooled, mean_weight


class ChannelsLast:
    """A convolution by the definition.

    Args:
        weight: (K, C, kh, kw) in the dtype of the activations.
        stride, padding, dilation: integers.
        bias: (K,), to be added here, with a float32 weight; or None.
        later: (K,) or None, a bias that is not added here; see `network`.
    """

    adds = False

    def __init__(self, weight, stride, padding, dilation, *, bias=None, later=None):
        self.weight = weight.detach().clone(memory_format=torch.channels_last)
        self.bias, self.later = (None if b is None else b.detach().float().clone() for b in (bias, later))
        self.sizes = stride, padding, dilation

    def __call__(self, x, arena):
        y = F.conv2d(x, self.weight, self.bias, *self.sizes)
        return y.contiguous(memory_format=torch.channels_last)  # of images with one channel both orders are the same


class Fresh:
    """An `Arena` that keeps nothing: torch's allocator does, and a captured graph has memory of its own.

    Args:
        dtype, device: of the tensors.
    """

    threads = 1

    def __init__(self, dtype, device):
        self.dtype, self.device = dtype, device

    def take(self, shape) -> torch.Tensor:
        """A buffer (B, C, H, W), channels-last, with anything in it."""
        return torch.empty(shape, dtype=self.dtype, device=self.device, memory_format=torch.channels_last)

    def give(self, *buffers) -> None:
        """Does nothing: a buffer is free once nobody has it."""

    def scratch(self, size) -> torch.Tensor:
        """`size` floats."""
        return torch.empty(size, device=self.device)

    def clear(self) -> None:
        """Does nothing."""


_switch = threading.RLock()


@contextlib.contextmanager
def float32_convolutions(precision):
    """Float32 convolutions by cuDNN in "tf32" or "ieee" inside, as before behind it.

    The switch is torch's, of the whole process: engines in several threads take turns, and what else computes
    meanwhile sees it.
    """
    conv = torch.backends.cudnn.conv
    with _switch:
        before = conv.fp32_precision
        conv.fp32_precision = precision
        try:
            yield
        finally:
            conv.fp32_precision = before


class GpuForms:
    """The forms of the convolutions on a GPU, with activations in `dtype`; see `network`.

    Args:
        dtype: of the activations.
        tf32: whether convolutions of float32 round their inputs to TF32.
    """

    def __init__(self, dtype, tf32=False):
        self.dtype, self.tf32, self.norms = dtype, tf32, set()

    def settle_norms(self, batch, device) -> list[str]:
        """Finds by measurement which form of the norms' kernels serves a batch of this size, and says which."""
        notes = []
        for shape in sorted(self.norms):
            forms = norm_forms.settle((batch, *shape), self.dtype, device)
            if forms:
                alone, summed = (norm_forms.name_of(forms[with_sum]) for with_sum in (False, True))
                notes.append(f"norms of {'x'.join(map(str, (batch, *shape)))}: {alone}; with a sum {summed}")
        return notes

    def around(self):
        """What a forward pass runs in.

        `torch.backends.cudnn.benchmark` stays as it is, off unless somebody set it: a process that continues a run
        could find another plan by measurement, and with it other bits.
        """
        return float32_convolutions("tf32" if self.tf32 else "ieee")

    def outer(self, conv, size):
        """Of the first and the last convolution."""
        return ChannelsLast(conv.weight.float(), 1, 1, 1, bias=conv.bias)

    def convolution(self, conv, size):
        """Of an nn.Conv2d that keeps the size."""
        return ChannelsLast(conv.weight.to(self.dtype), 1, conv.padding[0], conv.dilation[0], later=conv.bias)

    def pooled(self, module, size):
        """Of a `ConvMeanPool`."""
        conv = module.conv
        if conv.kernel_size == (1, 1):  # commutes with the mean
            return Pooled(self.convolution(conv, size), before=True)
        if size[1] % 2 or size[2] % 2:
            return Pooled(self.convolution(conv, size), before=False)
        return ChannelsLast(mean_weight(conv.weight).to(self.dtype), 2, 1, 1, later=conv.bias)
