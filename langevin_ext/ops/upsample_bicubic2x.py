"""Images of twice the height and width, with fresh noise and the next network input in the same pass."""

import torch
import torch.nn.functional as F

from .. import _native, reference
from .._transforms import transformed
from ..reference import bicubic2x_weights, check_counter
from .common import STATE, check_tensor, define, dense, signed, unsigned

NAME = "upsample_bicubic2x"
INPUT = (torch.float32, torch.bfloat16, torch.float16)


def _doubled(x, dtype, memory_format):
    n, c, h, w = x.shape
    return torch.empty((n, c, 2 * h, 2 * w), dtype=dtype, device=x.device, memory_format=memory_format)


def _outputs(x, input_dtype):
    """(y, u) for a dense x: y in its memory format, u channels-last, or empty where no dtype asks for it."""
    y = _doubled(x, x.dtype, torch.contiguous_format if x.is_contiguous() else torch.channels_last)
    return y, x.new_empty(0) if input_dtype is None else _doubled(x, input_dtype, torch.channels_last)


def _upsample(x, a, sigma, seed, step, first, stream, input_dtype):
    core = _native.core_for(x)
    x = dense(x)
    y, u = _outputs(x, input_dtype)
    if core is None:
        result = reference.upsample_bicubic2x(
            x,
            a=a,
            sigma=sigma,
            seed=unsigned(seed),
            step=step,
            first=first,
            stream=stream,
            input_dtype=input_dtype,
        )
        if input_dtype is None:
            return y.copy_(result), u
        return y.copy_(result[0]), u.copy_(result[1])
    core.upsample_bicubic2x(
        x,
        y,
        None if input_dtype is None else u,
        a,
        sigma,
        seed,
        step,
        first,
        stream,
        torch.get_num_threads(),
    )
    return y, u


def _fake(x, a, sigma, seed, step, first, stream, input_dtype):
    return _outputs(dense(x), input_dtype)


def _setup_context(ctx, inputs, output):
    x, ctx.a, *_, input_dtype = inputs
    ctx.dtype = x.dtype
    ctx.with_input = input_dtype is not None
    if not ctx.with_input:
        ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_y, grad_u):
    """The op is linear in x up to constants: its transpose, in plain torch, which can be differentiated in turn."""
    grad = grad_y
    if ctx.with_input and grad_u is not None:  # u = 2 y - 1
        grad_u = 2 * grad_u.to(ctx.dtype)
        grad = grad_u if grad is None else grad + grad_u
    if grad is not None:
        grad = _transposed(_transposed(grad, 3, ctx.a), 2, ctx.a)
    return grad, None, None, None, None, None, None, None


def _transposed(grad, axis, a):
    """The gradient in x along one axis from that in y: what each tap took goes back, from beyond the border too."""
    grad = grad.movedim(axis, -1)
    even, odd = grad.reshape(*grad.shape[:-1], -1, 2).unbind(-1)  # vmap knows this one
    quarter, three, five, seven = bicubic2x_weights(a, grad.dtype)
    parts = [w * even for w in (seven, three, quarter, five)], [w * odd for w in (five, quarter, three, seven)]
    padded = sum(F.pad(parts[phase][j], (j + phase, 4 - j - phase)) for phase in (0, 1) for j in range(4))
    size = even.shape[-1]
    left, right = padded[..., :2].sum(-1, keepdim=True), padded[..., -2:].sum(-1, keepdim=True)
    folded = padded[..., 2:-2] + F.pad(left, (0, size - 1)) + F.pad(right, (size - 1, 0))
    return folded.movedim(-1, axis)


_upsample_op = define(
    f"{NAME}(Tensor x, float a, float sigma, int seed, int step, int first, int stream, ScalarType? input_dtype) "
    "-> (Tensor, Tensor)",
    _upsample,
    _fake,
    backward=_backward,
    setup_context=_setup_context,
)


def upsample_bicubic2x(x, *, a=-0.75, sigma=0.0, seed=0, step=0, first=0, stream=11, input_dtype=None):
    """Images twice as high and wide by cubic convolution, with fresh noise: bicubic(x) + sigma z, made in one pass.

    Keys 1981, "Cubic convolution interpolation for digital image processing", equation 4; the upsampling of Block,
    Mroueh, Rakhlin and Ross 2020 (arXiv:2006.11166), Algorithm 2, line 12. With i clamped to the image, along each axis

        y[2 i]     = w(1/4) x[i] + w(3/4) x[i - 1] + w(5/4) x[i + 1] + w(7/4) x[i - 2]
        y[2 i + 1] = w(1/4) x[i] + w(3/4) x[i + 1] + w(5/4) x[i - 1] + w(7/4) x[i + 2]
        w(s) = (a + 2) s^3 - (a + 3) s^2 + 1 for s <= 1,  a s^3 - 5 a s^2 + 8 a s - 4 a for 1 < s < 2

    which is torch's `interpolate(mode="bicubic", align_corners=False)` for a = -0.75, and Pillow's kernel for a = -0.5
    (Pillow cuts it off at the border instead of repeating pixels). Values may leave x's range: nothing is clamped.
    y has the bits of `perturb(upsample_bicubic2x(x), sigma)` with the same coordinates. Twice differentiable
    in x; within torch.func and with forward-mode tangents in plain torch.

    Args:
        x: (samples, C, H, W) float32, or float64 (on a GPU in plain torch); H, W >= 1; contiguous and channels-last
            alike, other strides are copied.
        a: finite number, the slope of w at 1.
        sigma: finite number >= 0, the level of the noise; 0 draws none.
        seed, step, first, stream: where the noise z of y lies, see `langevin_ext.noise` (11 is its RENOISE); z depends
            on nothing else.
        input_dtype: float32, bfloat16 or float16 (float32 with a float64 x): also return the next network input.

    Returns:
        y (samples, C, 2 H, 2 W) of x's dtype, in x's memory format; with an input_dtype (y, u), u = 2 y - 1 in that
        dtype, channels-last. The bits depend on neither the batch, the number of threads nor the memory format.

    Raises:
        TypeError, ValueError: a dtype, shape, number or coordinate does not fit.
    """
    check_tensor(NAME, "x", x, STATE)
    if x.dim() != 4 or 0 in x.shape[2:]:
        raise ValueError(f"{NAME}: x must have shape (samples, C, H, W) with H, W >= 1, got {tuple(x.shape)}")
    largest = torch.finfo(x.dtype).max
    if not (isinstance(a, int | float) and abs(a) <= largest):
        raise ValueError(f"{NAME}: a must be finite, got {a}")
    if not (isinstance(sigma, int | float) and 0 <= sigma <= largest):
        raise ValueError(f"{NAME}: sigma must be finite and >= 0, got {sigma}")
    allowed = INPUT[:1] if x.dtype == torch.float64 else INPUT
    if input_dtype is not None and input_dtype not in allowed:
        names = ", ".join(str(d).removeprefix("torch.") for d in allowed)
        raise TypeError(f"{NAME}: input_dtype must be {names} or None with a {str(x.dtype)[6:]} x, got {input_dtype}")
    samples, channels, height, width = x.shape
    check_counter(NAME, seed, step, first, stream, (samples, channels, 2 * height, 2 * width))
    if transformed():
        at = {"seed": seed, "step": step, "first": first, "stream": stream}
        return reference.upsample_bicubic2x(x, a=a, sigma=sigma, input_dtype=input_dtype, **at)
    y, u = _upsample_op(x, float(a), float(sigma), signed(seed), step, first, stream, input_dtype)
    return y if input_dtype is None else (y, u)
