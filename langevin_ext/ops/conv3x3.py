"""3x3 convolution that keeps the size, in float32 on the CPU by F(4x4, 3x3), with gradients of every order.

The convolution y = c(x, w) is linear in both, and so are the gradients t(g, w) of <g, c> in x and k(x, g) in w:

    <g, c(x, w)> = <x, t(g, w)> = <w, k(x, g)>

Each of the three is an op, and the derivatives of each are the two others.
"""

import math
import threading

import torch
import torch.nn.functional as F

from .. import _native
from .._compiler import assume_constant_result
from .._transforms import transformed
from .common import define

CHANNELS = 16  # come in multiples of this
TILE = 4
WORTH = 0.6  # of the pixels' products; below that its transforms are paid for
POINTS = 36
LAST = torch.channels_last


class _Scratch(threading.local):
    """Memory that the kernels of one thread use over and over; it grows to what the largest convolution needs."""

    buffer = None

    def take(self, *sizes):
        """Tensors of so many floats, with anything in them, until the next call."""
        if self.buffer is None or len(self.buffer) < sum(sizes):
            self.buffer = torch.empty(sum(sizes), dtype=torch.float32, device="cpu")
        return self.buffer[: sum(sizes)].split(list(sizes))


_scratch = _Scratch()


def _convolve(x, weight, bias, dilation, transposed):
    """c(x, w) + bias, or t(x, w)."""
    core, threads = _native.core(x.device), torch.get_num_threads()
    outputs = weight.shape[1 if transposed else 0]
    y = torch.empty((len(x), outputs, *x.shape[2:]), memory_format=LAST)
    if y.numel() == 0:
        return y
    x = x.contiguous(memory_format=LAST)
    points, scratch = _scratch.take(
        POINTS * weight.shape[0] * weight.shape[1], core.winograd_scratch(x, outputs, dilation)
    )
    core.winograd_weight(weight.contiguous(memory_format=LAST), points, transposed, threads)
    bias = None if bias is None else bias.contiguous()
    core.winograd(x, points, bias, None, y, scratch, dilation, False, threads)
    return y


def _forward(x, weight, bias, dilation):
    return _convolve(x, weight, bias, dilation, False)


def _transposed(grad_y, weight, dilation):
    return _convolve(grad_y, weight, None, dilation, True)


def _weight_gradient(x, grad_y, dilation):
    grad = torch.empty((grad_y.shape[1], x.shape[1], 3, 3), memory_format=LAST)
    if x.numel() == 0:
        return grad.zero_()
    core, x = _native.core(x.device), x.contiguous(memory_format=LAST)
    (scratch,) = _scratch.take(core.winograd_weight_gradient_scratch(x, len(grad), dilation))
    grad_y = grad_y.contiguous(memory_format=LAST)
    core.winograd_weight_gradient(x, grad_y, grad, scratch, dilation, torch.get_num_threads())
    return grad


def _forward_fake(x, weight, bias, dilation):
    return torch.empty((len(x), len(weight), *x.shape[2:]), dtype=x.dtype, device=x.device, memory_format=LAST)


def _transposed_fake(grad_y, weight, dilation):
    shape = (len(grad_y), weight.shape[1], *grad_y.shape[2:])
    return torch.empty(shape, dtype=grad_y.dtype, device=grad_y.device, memory_format=LAST)


def _weight_gradient_fake(x, grad_y, dilation):
    shape = (grad_y.shape[1], x.shape[1], 3, 3)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=LAST)


def _save(ctx, inputs, output):
    *tensors, ctx.dilation = inputs
    ctx.save_for_backward(*tensors[:2])


# The three of above for the derivatives: where a gradient may have a tangent, although x had none, in plain torch.
def _c(x, weight, d):
    return F.conv2d(x, weight, padding=d, dilation=d) if transformed() else _forward_op(x, weight, None, d)


def _t(grad_y, weight, d):
    if not transformed():
        return _transposed_op(grad_y, weight, d)
    return torch.nn.grad.conv2d_input((len(grad_y), weight.shape[1], *grad_y.shape[2:]), weight, grad_y, 1, d, d)


def _k(x, grad_y, d):
    if not transformed():
        return _weight_op(x, grad_y, d)
    return torch.nn.grad.conv2d_weight(x, (grad_y.shape[1], x.shape[1], 3, 3), grad_y, 1, d, d)


def _forward_backward(ctx, grad_y):
    (x, weight), d, (need_x, need_weight, need_bias, _) = ctx.saved_tensors, ctx.dilation, ctx.needs_input_grad
    return (
        _t(grad_y, weight, d) if need_x else None,
        _k(x, grad_y, d) if need_weight else None,
        grad_y.sum(dim=(0, 2, 3)) if need_bias else None,
        None,
    )


def _transposed_backward(ctx, grad):
    (grad_y, weight), d, (need_grad_y, need_weight, _) = ctx.saved_tensors, ctx.dilation, ctx.needs_input_grad
    return _c(grad, weight, d) if need_grad_y else None, _k(grad, grad_y, d) if need_weight else None, None


def _weight_backward(ctx, grad):
    (x, grad_y), d, (need_x, need_grad_y, _) = ctx.saved_tensors, ctx.dilation, ctx.needs_input_grad
    return _t(grad_y, grad, d) if need_x else None, _c(x, grad, d) if need_grad_y else None, None


_forward_op = define(
    "conv3x3(Tensor x, Tensor weight, Tensor? bias, int dilation) -> Tensor",
    _forward,
    _forward_fake,
    backward=_forward_backward,
    setup_context=_save,
)
_transposed_op = define(
    "conv3x3_transposed(Tensor grad_y, Tensor weight, int dilation) -> Tensor",
    _transposed,
    _transposed_fake,
    backward=_transposed_backward,
    setup_context=_save,
)
_weight_op = define(
    "conv3x3_weight(Tensor x, Tensor grad_y, int dilation) -> Tensor",
    _weight_gradient,
    _weight_gradient_fake,
    backward=_weight_backward,
    setup_context=_save,
)


@assume_constant_result
def _why_no_kernel():
    if not hasattr(_native.core(torch.device("cpu")), "winograd_weight"):
        return "the native core has no such kernel"
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return "it is compiled for AVX2 and AVX-512"
    return ""


def why_not_fast(channels, outputs, height, width, dilation=1) -> str:
    """Why a float32 3x3 convolution on the CPU is not computed by F(4x4, 3x3), "" where it is.

    The answer does not depend on the batch, nor does then a sample's result.

    Args:
        channels, outputs: of the convolution.
        height, width: of its input.
        dilation: of it.
    """
    if channels % CHANNELS or outputs % CHANNELS:
        return f"it is for 3x3 kernels and channels in multiples of {CHANNELS}"
    tiles = dilation**2
    for size in (height, width):
        tiles *= math.ceil(math.ceil(size / dilation) / TILE)
    if 4 * tiles > WORTH * height * width:
        return "the image is too small"
    return _why_no_kernel()


def conv3x3(x, weight, bias=None, dilation=1) -> torch.Tensor:
    """3x3 convolution with stride 1 and zero padding of `dilation` pixels, which keeps the size.

        y[n, k, i, j] = bias[k] + sum_{c, a, b} weight[k, c, a, b] x[n, c, i + (a - 1) dilation, j + (b - 1) dilation]

    In float32 on the CPU by Winograd's F(4x4, 3x3) with a quarter of the products (Lavin and Gray 2016,
    arXiv:1509.09308; csrc/winograd.h) where `why_not_fast` has no objection, and so are its gradients of any order.
    Elsewhere, under autocast, within torch.func and with forward-mode tangents it is `F.conv2d`. A sample's result
    depends on neither the rest of the batch nor the number of threads.

    Args:
        x: (B, C, H, W); channels-last is read as it is, other strides are copied.
        weight: (K, C, 3, 3); likewise.
        bias: (K,) or None.
        dilation: integer >= 1.

    Returns:
        (B, K, H, W), channels-last where F(4x4, 3x3) serves.

    Raises:
        ValueError: dilation is no integer >= 1, or the weight is not of 3x3.
        RuntimeError: the shapes do not fit, as from `F.conv2d`.
    """
    if type(dilation) is not int or dilation < 1:
        raise ValueError(f"conv3x3: dilation must be an integer >= 1, got {dilation!r}")
    if weight.shape[2:] != (3, 3):
        raise ValueError(f"conv3x3: weight must have shape (K, C, 3, 3), got {tuple(weight.shape)}")
    if is_winograd(x, weight, bias, dilation):
        return _forward_op(x, weight, bias, dilation)
    return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)


def is_winograd(x, weight, bias=None, dilation=1) -> bool:
    """Whether `conv3x3` of these is computed by F(4x4, 3x3)."""
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return (
        all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
        and x.dim() == 4
        and weight.shape[1:] == (x.shape[1], 3, 3)
        and 0 not in weight.shape
        and (bias is None or bias.shape == weight.shape[:1])
        and isinstance(dilation, int)
        and dilation > 0
        and not torch.is_autocast_enabled("cpu")
        and not transformed()
        and not why_not_fast(weight.shape[1], weight.shape[0], x.shape[2], x.shape[3], dilation)
    )
