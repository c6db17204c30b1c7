"""Conditional instance normalisation++, with the sum before it and the ELU behind it in the same pass."""

import math
from itertools import compress

import torch

from .. import _native, reference
from .._transforms import transformed
from . import norm_forms
from .common import ACTIVATION, check_like, check_tensor, define, dense
from .norm_forms import KERNELS, NAME, like, room_for_stats


def _check_level(level, weight):
    """The core does this for its callers on the CPU; on a GPU it would wait for the kernels before."""
    if level is not None and level.device.type == "cpu" and level.numel():
        for value in (int(level.min()), int(level.max())):
            if not 0 <= value < len(weight):
                raise ValueError(f"{NAME}: level must be in [0, {len(weight)}), got {value}")


def _forward(x, residual, weight, level, paper, eps, elu, kernel="auto"):
    core = _native.core_for(x)
    x = dense(x)
    if core is None or x.numel() == 0:
        if kernel == "one-pass" and x.numel():
            raise ValueError(f"{NAME}: kernel must be 'auto' here, got 'one-pass': the native core does not run")
        _check_level(level, weight)
        out = reference.instance_norm_plus(
            x, weight, level, form="paper" if paper else "official", eps=eps, elu=elu, residual=residual
        )
        y, total = (out, None) if residual is None else out
        return like(y, x), x.new_empty(0) if total is None else like(total, x), room_for_stats(x).zero_()
    residual = like(residual, x)
    blocks = norm_forms.blocks_for(core, x, residual, kernel)
    y, total, stats = norm_forms.forward(core, x, residual, weight, level, paper, eps, elu, blocks)
    return y, x.new_empty(0) if total is None else total, stats


def _contiguous(level):
    return None if level is None else level.contiguous()


def _forward_fake(x, residual, weight, level, paper, eps, elu, kernel="auto"):
    x = dense(x)
    return torch.empty_like(x), x.new_empty(0) if residual is None else torch.empty_like(x), room_for_stats(x)


def _backward(grad_y, grad_sum, x, weight, level, stats, paper, eps, elu, need_x, need_weight):
    core = _native.core_for(x)
    x = dense(x)
    if core is None or x.numel() == 0:
        grads = _plain_backward(grad_y, grad_sum, x, weight, level, paper, eps, elu)
        return (
            like(grads[0], x) if need_x else x.new_empty(0),
            grads[1].contiguous() if need_weight else weight.new_empty(0),
        )
    weight = weight.contiguous()
    grad_x = torch.empty_like(x) if need_x else None
    grad_weight = torch.empty_like(weight) if need_weight else None
    scratch = stats.new_empty(core.instance_norm_plus_scratch(x, True))
    core.instance_norm_plus_backward(
        x,
        like(grad_y, x),
        like(grad_sum, x),
        grad_x,
        grad_weight,
        weight,
        _contiguous(level),
        stats,
        scratch,
        paper,
        eps,
        elu,
        torch.get_num_threads(),
    )
    return (grad_x if need_x else x.new_empty(0)), (grad_weight if need_weight else weight.new_empty(0))


def _plain_backward(grad_y, grad_sum, x, weight, level, paper, eps, elu):
    """The formulas of csrc/instance_norm_plus.h in plain torch, which can be differentiated in turn."""
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    dtype, x, g = x.dtype, x.to(weight.dtype), grad_y.to(weight.dtype)
    level = torch.zeros(len(x), dtype=torch.int64, device=x.device) if level is None else level
    gamma, alpha, *beta = weight[level][:, :, None, None].split(channels, dim=1)
    mu = x.mean(dim=(2, 3), keepdim=True)
    centred = x - mu
    r = torch.rsqrt(centred.square().mean(dim=(2, 3), keepdim=True) + eps)
    xhat = centred * r
    mu = mu - mu.mean(dim=1, keepdim=True)
    q = torch.rsqrt(mu.square().sum(dim=1, keepdim=True) / max(channels - 1, 1) + eps)
    muhat = mu * q
    if elu:
        y = gamma * xhat + (alpha if paper else gamma * alpha) * muhat + (beta[0] if beta else 0)
        g = g * torch.where(y > 0, 1, y.clamp(max=0).exp())
    s1, s2 = g.sum(dim=(2, 3), keepdim=True), (g * xhat).sum(dim=(2, 3), keepdim=True)
    t = (alpha if paper else gamma * alpha) * s1
    grad_mu = q * (
        t - t.mean(dim=1, keepdim=True) - muhat * (t * muhat).sum(dim=1, keepdim=True) / max(channels - 1, 1)
    )
    grad_x = gamma * r * (g - s1 / pixels - xhat * s2 / pixels) + grad_mu / pixels
    grad_x = grad_x if grad_sum is None else grad_x + grad_sum
    rows = (s2, muhat * s1) if paper else (s2 + alpha * muhat * s1, gamma * muhat * s1)
    rows = torch.cat([*rows, s1][: 2 + len(beta)], dim=1).flatten(1)
    return grad_x.to(dtype), torch.zeros_like(weight).index_add(0, level, rows)


def _backward_fake(grad_y, grad_sum, x, weight, level, stats, paper, eps, elu, need_x, need_weight):
    return (
        torch.empty_like(dense(x)) if need_x else x.new_empty(0),
        torch.empty_like(weight, memory_format=torch.contiguous_format) if need_weight else weight.new_empty(0),
    )


def _setup_context(ctx, inputs, output):
    x, residual, weight, level, *ctx.options, _ = inputs
    _, total, stats = output
    ctx.set_materialize_grads(False)
    ctx.with_residual = residual is not None
    ctx.mark_non_differentiable(*([stats] if ctx.with_residual else [total, stats]))
    ctx.save_for_backward(x if residual is None else total, weight, level, stats)


def _autograd(ctx, grad_y, grad_sum, _):
    x, weight, level, stats = ctx.saved_tensors
    need_x, need_weight = any(ctx.needs_input_grad[:2]), ctx.needs_input_grad[2]
    grad_sum = grad_sum if ctx.with_residual else None
    grad_x, grad_weight = grad_sum, None
    if grad_y is not None and transformed():  # the gradient may have a tangent where x had none
        grad_x, grad_weight = _plain_backward(grad_y, grad_sum, x, weight, level, *ctx.options)
    elif grad_y is not None:
        grad_x, grad_weight = _backward_op(grad_y, grad_sum, x, weight, level, stats, *ctx.options, need_x, need_weight)
    return (
        grad_x if ctx.needs_input_grad[0] else None,
        grad_x if ctx.needs_input_grad[1] else None,
        grad_weight if need_weight else None,
        *[None] * 5,
    )


def _second_setup_context(ctx, inputs, output):
    grad_y, grad_sum, x, weight, level, _, *ctx.options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(grad_y, grad_sum, x, weight, level)


def _second_autograd(ctx, *pulls):
    """The derivative of the gradient, from that of its formulas in plain torch; differentiable again."""
    *saved, level = ctx.saved_tensors
    *options, need_x, need_weight = ctx.options
    create_graph, needed = torch.is_grad_enabled(), ctx.needs_input_grad[: len(saved)]
    with torch.enable_grad():
        inputs = [t if t is None else t.view_as(t) for t in saved]  # a graph that ends here, connected to the one above
        grads = _plain_backward(*inputs, level, *options)
    pulled = [
        need and pull is not None and grad.requires_grad
        for need, pull, grad in zip((need_x, need_weight), pulls, grads, strict=True)
    ]
    if not any(pulled):
        return (None,) * len(ctx.needs_input_grad)
    found = iter(
        torch.autograd.grad(
            list(compress(grads, pulled)),
            list(compress(inputs, needed)),
            list(compress(pulls, pulled)),
            create_graph=create_graph,
            allow_unused=True,
        )
    )
    return *(next(found) if n else None for n in needed), *[None] * (len(ctx.needs_input_grad) - len(needed))


_forward_op = define(
    "instance_norm_plus(Tensor x, Tensor? residual, Tensor weight, Tensor? level, bool paper, float eps, bool elu, "
    'str kernel="auto") -> (Tensor, Tensor, Tensor)',
    _forward,
    _forward_fake,
)
_backward_op = define(
    "instance_norm_plus_backward(Tensor grad_y, Tensor? grad_sum, Tensor x, Tensor weight, Tensor? level, "
    "Tensor stats, bool paper, float eps, bool elu, bool need_x, bool need_weight) -> (Tensor, Tensor)",
    _backward,
    _backward_fake,
    backward=_second_autograd,
    setup_context=_second_setup_context,
)
torch.library.register_autograd("langevin_ext::instance_norm_plus", _autograd, setup_context=_setup_context)


def instance_norm_plus(x, weight, level=None, *, form="official", eps=1e-5, elu=False, residual=None, kernel="auto"):
    """Conditional instance normalisation++ of x, or of x + residual, then optionally an ELU, in one pass over memory.

    Song and Ermon 2019 (arXiv:1907.05600), appendix A.1. With the mean mu_c and the biased variance of each channel of
    each sample, r_c = 1 / sqrt(variance + eps), the mean m and the unbiased variance v of the C values mu_c, and
    [gamma | alpha | beta] = weight[level]:

        official:  y = gamma ((x - mu) r + alpha (mu - m) / sqrt(v + eps)) + beta     (the authors' code; checkpoints)
        paper:     y = gamma (x - mu) r + alpha (mu - m) / sqrt(v + eps) + beta       (as printed)
        elu:       y <- y where y > 0, else exp(y) - 1

    Statistics and arithmetic are float32 (float64 for float64 x), whatever the dtype of x, and the result is rounded
    once; an ELU of 16 bits has an error of 2e-7 besides on a GPU. x + residual is rounded to x's dtype before it is
    normalised. One channel has no spread of means: its alpha
    term is 0. One pixel has no variance: x - mu is 0. A sample's result depends on neither the rest of the batch nor
    the number of threads.

    Differentiable in x, weight and residual, any number of times. The first derivative is a kernel's, with create_graph
    too; those after it run in plain torch, which is slower and needs more memory while it runs, and so does everything
    within torch.func (grad, jvp, vmap) and with forward-mode tangents.

    Args:
        x: (samples, C, H, W) float32, bfloat16 or float16, or float64 (on a GPU in plain torch); contiguous and
            channels-last alike, other strides are copied.
        weight: (levels, 3 C) rows [gamma | alpha | beta], or (levels, 2 C) without beta; float32, or x's dtype.
        level: (samples,) int64 in [0, levels), each sample's row; None: row 0 for all. On a GPU the range is not
            checked, which would make the CPU wait: a sample whose level is outside becomes NaN.
        form: "official" or "paper".
        eps: finite number > 0.
        elu: whether an ELU follows.
        residual: x's shape and dtype, added to x first; or None.
        kernel: on a GPU "two-kernel"; "one-pass", for channels-last x on compute capability 9.0 and newer; or "auto",
            the faster where `norm_forms.choose_norm` has measured, else two kernels. The same bits.

    Returns:
        y like x; with a residual (y, x + residual).

    Raises:
        TypeError, ValueError: a dtype, shape, device or value does not fit.
    """
    _check(x, weight, level, form, eps, residual, kernel)
    if transformed():
        if kernel != "auto":
            raise ValueError(f"{NAME}: kernel must be 'auto' within torch.func and with tangents, got {kernel!r}")
        return _transformed(x, weight, level, {"form": form, "eps": eps, "elu": elu, "residual": residual})
    weight = weight.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    y, total, _ = _forward_op(x, residual, weight, level, form == "paper", float(eps), bool(elu), kernel)
    return y if residual is None else (y, total)


def _transformed(x, weight, level, options):
    """In plain torch; a level outside the table is refused on the CPU and makes its sample NaN on a GPU."""
    if level is None:
        return reference.instance_norm_plus(x, weight, level, **options)
    outside = (level < 0) | (level >= len(weight))
    if x.device.type == "cpu":
        level = torch.where(outside, len(weight), level)  # which torch refuses
        return reference.instance_norm_plus(x, weight, level, **options)
    out = reference.instance_norm_plus(x, weight, level.clamp(0, len(weight) - 1), **options)
    y, *total = out if isinstance(out, tuple) else (out,)
    y = y.masked_fill(outside[:, None, None, None], math.nan)
    return (y, *total) if total else y


def _check(x, weight, level, form, eps, residual, kernel):
    check_tensor(NAME, "x", x, ACTIVATION)
    if x.dim() != 4 or x.shape[1] == 0:
        raise ValueError(f"{NAME}: x must have shape (samples, C, H, W) with C >= 1, got {tuple(x.shape)}")
    check_tensor(NAME, "weight", weight, tuple(dict.fromkeys((torch.float32, x.dtype))))
    channels = x.shape[1]
    if weight.dim() != 2 or weight.shape[0] < 1 or weight.shape[1] not in (2 * channels, 3 * channels):
        raise ValueError(
            f"{NAME}: weight must have shape (levels, {3 * channels}), or (levels, {2 * channels}) "
            f"without beta, to go with x, got {tuple(weight.shape)}"
        )
    check_like(NAME, "weight", weight, "x", x, weight.shape)
    if level is not None:
        check_tensor(NAME, "level", level, (torch.int64,))
        check_like(NAME, "level", level, "x", x, x.shape[:1])
    if form not in ("official", "paper"):
        raise ValueError(f"{NAME}: form must be 'official' or 'paper', got {form!r}")
    if kernel not in KERNELS:
        raise ValueError(f"{NAME}: kernel must be 'auto', 'two-kernel' or 'one-pass', got {kernel!r}")
    if not (math.isfinite(eps) and eps > 0):
        raise ValueError(f"{NAME}: eps must be finite and > 0, got {eps}")
    if residual is not None:
        check_tensor(NAME, "residual", residual, (x.dtype,))
        check_like(NAME, "residual", residual, "x", x)
