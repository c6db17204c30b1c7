"""The convolutions of an engine on the CPU, each with its weight in the form that it is computed with.

A convolution is called as conv(x, arena, add=None) on channels-last x; the result is a buffer of the arena, or `add`,
increased by the convolution. It adds its bias itself. Which kind serves depends on channels and size alone, never on
the batch or a clock, so that a sample's numbers do not depend on how a run is cut.
"""

import contextlib
import functools

import torch
import torch.nn.functional as F

from .. import _native
from ..ops.conv3x3 import why_not_fast
from .precisions import DTYPES

PANEL = 64
INT16_GROUP, INT16_RUN, INT16_LARGEST = 32, 128, 7000
INT16_APART = 4  # times finer than what the smallest scale of an output asks for, beyond which none is wanted
_G = (  # csrc/winograd.h
    (1, 0, 0),
    (1 / 3, 1 / 3, 1 / 3),
    (-1 / 3, 1 / 3, -1 / 3),
    (-16 / 15, -8 / 15, -4 / 15),
    (1 / 15, -2 / 15, 4 / 15),
    (0, 0, 1),
)


class Winograd:
    """3x3 convolution with stride 1 by F(4x4, 3x3), 36 products for 16 outputs; see csrc/winograd.h.

    Args:
        weight, bias: of the convolution, (K, C, 3, 3) and (K,) or None, float32.
        dilation: of it, which is also the padding.
        pool: the mean over 2x2 pixels follows, taken in the transform of the result.
    """

    adds, later = True, None

    def __init__(self, weight, bias, dilation=1, pool=False):
        self.weight, self.outputs = winograd_weight(weight), len(weight)
        self.bias = None if bias is None else bias.detach().clone()
        self.dilation, self.pool = dilation, pool

    def __call__(self, x, arena, add=None):
        core, shrink = _native.core(x.device), 2 if self.pool else 1
        y = arena.take((len(x), self.outputs, x.shape[2] // shrink, x.shape[3] // shrink)) if add is None else add
        scratch = arena.scratch(core.winograd_scratch(x, self.outputs, self.dilation))
        core.winograd(x, self.weight, self.bias, add, y, scratch, self.dilation, self.pool, arena.threads)
        return y


class WinogradInt16(Winograd):
    """`Winograd` with 16-bit factors, whose products are added up in 32 bits without rounding; see csrc/winograd.h."""

    def __init__(self, weight, bias, dilation=1, pool=False):
        super().__init__(weight, bias, dilation, pool)
        self.weight, self.point_scale, self.scale = winograd_int16_weight(weight)

    def __call__(self, x, arena, add=None):
        core, shrink = _native.core(x.device), 2 if self.pool else 1
        y = arena.take((len(x), self.outputs, x.shape[2] // shrink, x.shape[3] // shrink)) if add is None else add
        scratch = arena.scratch(core.winograd_int16_scratch(x, self.outputs, self.dilation))
        weights = (self.weight, self.point_scale, self.scale)
        core.winograd_int16(x, *weights, self.bias, add, y, scratch, self.dilation, self.pool, arena.threads)
        return y


_WINOGRAD = {"fp32": Winograd, "int16": WinogradInt16}


def winograd_points(weight) -> torch.Tensor:
    """G w G^T of csrc/winograd.h: (36, C, K) float64."""
    g = torch.tensor(_G, dtype=torch.float64)
    taps = weight.detach().permute(2, 3, 1, 0).reshape(9, -1).double()
    return (torch.kron(g, g) @ taps).view(-1, weight.shape[1], len(weight))


def winograd_weight(weight) -> torch.Tensor:
    """G w G^T, rounded once, in the order of csrc/winograd.h: point, panel of outputs, channel, output."""
    return _in_panels(winograd_points(weight).float())


def winograd_int16_weight(weight) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """G w G^T as integers over two scales, those of the points (36,) and of the outputs (K,).

    The scales are about the finest of that form for which the 32-bit sums of csrc/winograd.h cannot overflow. Zeros
    and other small values, which could have any, have no say in those that outputs share.
    """
    points = winograd_points(weight).float()
    count, channels, outputs = points.shape
    sizes = points.abs()
    sums = torch.stack([run.sum(1) for run in sizes.split(INT16_RUN, dim=1)]).amax(0).clamp(min=1e-30)
    largest = sizes.amax(1).clamp(min=1e-30)
    # Rounding adds at most 1/2 to each integer.
    finest = torch.minimum((2**31 / INT16_LARGEST - INT16_RUN) / sums, (2**15 - 1) / largest)  # (36, K)
    rows = torch.tensor(_G).norm(dim=1)
    usual = 1 / torch.outer(rows, rows).flatten()[:, None]  # of weights that are not related to each other
    apart = finest / usual
    at_points = (apart / apart.amin(0)).clamp(max=INT16_APART).log().mean(1, keepdim=True).exp().mul(usual)[:, 0]
    at_outputs = (finest / at_points[:, None]).amin(0)
    integers = (points * at_points[:, None, None] * at_outputs).round()
    padded = F.pad(integers, (0, 0, 0, -channels % INT16_GROUP)).to(torch.int16)
    pairs = padded.view(count, -1, 2, INT16_GROUP // 2, outputs).movedim(2, -1)  # channels i and i + 16 of a group
    panels = [panel.flatten(1) for panel in pairs.split(PANEL, dim=3)]
    return torch.cat(panels, dim=1).flatten(), 1 / at_points, 1 / at_outputs


def _in_panels(points):
    return torch.cat([panel.flatten(1) for panel in points.split(PANEL, dim=2)], dim=1).flatten()


class Direct:
    """Convolution by the definition, through oneDNN with its weight in oneDNN's own order where torch offers that.

    Args:
        weight, bias: (K, C, kh, kw) and (K,) or None, in the dtype of the activations.
        stride, padding, dilation: integers.
        size: (B, H, W) of the inputs, which the order is chosen for; others are right, too.
    """

    adds, later = True, None

    def __init__(self, weight, bias, stride, padding, dilation, size):
        self.weight = weight.detach().clone(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.detach().clone()
        self.stride, self.padding, self.dilation = ([n, n] for n in (stride, padding, dilation))
        self.packed = None
        if not why_not_packed(weight.dtype):
            batch, *size = size
            shape = [batch, weight.shape[1], *size]
            self.packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, self.padding, self.stride, self.dilation, 1, shape
            )

    def __call__(self, x, arena, add=None):
        if self.packed is None:
            y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)
            return y if add is None else add.add_(y)
        sizes = (self.padding, self.stride, self.dilation, 1)
        if add is None:
            return torch.ops.mkldnn._convolution_pointwise(x, self.packed, self.bias, *sizes, "none", [], "")
        return torch.ops.mkldnn._convolution_pointwise_(
            add, x, self.packed, self.bias, *sizes, "add", None, None, [], ""
        )


@functools.cache
def why_not_packed(dtype) -> str:
    """Why weights are not repacked, "" where they are: torch's operators for it are private, so one is tried."""
    x = torch.arange(36.0).view(1, 4, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    w = torch.ones(4, 4, 3, 3, dtype=dtype)
    expected = 2 * F.conv2d(x, w, padding=1)
    sizes = ([1, 1], [1, 1], [1, 1], 1)
    try:
        packed = torch.ops.mkldnn._reorder_convolution_weight(w, *sizes, list(x.shape))
        y = torch.ops.mkldnn._convolution_pointwise(x, packed, None, *sizes, "none", [], "")
        torch.ops.mkldnn._convolution_pointwise_(y, x, packed, None, *sizes, "add", None, None, [], "")
    except (AttributeError, RuntimeError, TypeError) as error:
        return f"torch {torch.__version__} has no such operators ({str(error).splitlines()[0]})"
    return "" if torch.equal(y, expected) else f"the operators of torch {torch.__version__} give another result"


@functools.cache
def why_not_int16() -> str:
    """Why `WinogradInt16` does not run here, "" where it does."""
    return _native.core(torch.device("cpu")).why_no_winograd_int16()


@functools.cache
def why_int16_is_slow() -> str:
    """Why `WinogradInt16` does not run here, or not faster than `Winograd`, "" where it does."""
    return _native.core(torch.device("cpu")).why_winograd_int16_is_slow()


def why_not_winograd(conv, height, width, precision) -> str:
    """Why a convolution is not computed by `Winograd`, "" where it is.

    Args:
        conv: nn.Conv2d that keeps the size.
        height, width: of its input.
        precision: of the engine.
    """
    if precision == "bf16":
        return "it is for float32"
    if conv.kernel_size != (3, 3):
        return "it is for 3x3 kernels"
    return why_not_fast(conv.in_channels, conv.out_channels, height, width, conv.dilation[0])


class Pooled:
    """The mean over 2x2 pixels, before or after a convolution of any kind."""

    def __init__(self, conv, before):
        self.conv, self.before, self.adds, self.later = conv, before, conv.adds, conv.later

    def __call__(self, x, arena, **add):
        if self.before:
            return self.conv(pooled(x), arena, **add)
        y = pooled(self.conv(x, arena))
        return add["add"].add_(y) if add else y


def pooled(x):
    """The mean over 2x2 pixels; an odd last row or column is averaged over the pixels it has."""
    return F.avg_pool2d(x, 2, ceil_mode=True)


def mean_weight(weight):
    """Of the convolution with stride 2 that is a 3x3 one's mean over 2x2 pixels: the mean of the four shifted."""
    return F.avg_pool2d(F.pad(weight, (1, 1, 1, 1)), 2, stride=1)


class CpuForms:
    """The fastest forms of the convolutions on a CPU; see `network`.

    Args:
        precision: of the convolutions between the first and the last.
    """

    def __init__(self, precision):
        self.precision, self.dtype, self.norms = precision, DTYPES[precision], set()

    def settle_norms(self, batch, device) -> list[str]:
        """Nothing: the norms' kernels have one form."""
        return []

    def around(self):
        """What a forward pass runs in."""
        return contextlib.nullcontext()

    def outer(self, conv, size):
        """Of the first and the last convolution."""
        return Direct(conv.weight.float(), conv.bias.float(), 1, 1, 1, size)

    def convolution(self, conv, size):
        """Of an nn.Conv2d that keeps the size."""
        dilation, weight, bias = conv.dilation[0], conv.weight, conv.bias
        if not why_not_winograd(conv, *size[1:], self.precision):
            return _WINOGRAD[self.precision](weight, bias, dilation)
        padding = conv.padding[0]
        if dilation > 1 and dilation >= max(size[1:]):  # all taps but the centre's fall on the padding
            weight, dilation, padding = weight[:, :, 1:2, 1:2], 1, 0
        return Direct(*cast(weight, bias, self.dtype), 1, padding, dilation, size)

    def pooled(self, module, size):
        """Of a `ConvMeanPool`."""
        conv, (batch, height, width) = module.conv, size
        if conv.kernel_size == (1, 1):  # commutes with the mean
            small = (batch, -(-height // 2), -(-width // 2))
            return Pooled(Direct(*cast(conv.weight, conv.bias, self.dtype), 1, 0, 1, small), before=True)
        if height % 2 or width % 2:
            return Pooled(self.convolution(conv, size), before=False)
        if not why_not_winograd(conv, height, width, self.precision):
            return _WINOGRAD[self.precision](conv.weight, conv.bias, pool=True)
        return Direct(*cast(mean_weight(conv.weight), conv.bias, self.dtype), 2, 1, 1, size)


def cast(weight, bias, dtype):
    """Both in a dtype."""
    return weight.to(dtype), None if bias is None else bias.to(dtype)
