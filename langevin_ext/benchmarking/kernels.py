"""Each fused op beside plain torch, as calls to time: the inputs, both computations, and the bytes they must move.

A `Case` is one op on one set of inputs. The builders take the shapes, the device and a seed, so that a benchmark on a
GPU can rotate among several sets.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .. import _native, noise, ops, reference
from ..ops import norm_forms

DRAW = {"seed": 1, "step": 2}
SSCS = (0.9, -0.3, 0.2, 0.4), (-0.1, 0.7), (0.3, -0.2, 0.5)  # a merged step of that size
TOLERANCE = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}  # a few roundings to the dtype


class Case(NamedTuple):
    """One op on one set of inputs."""

    moved: int  # bytes that must be read and written at least
    calls: dict[str, Callable]  # "torch", "fused": calls without arguments
    same: list[Callable]  # two that must agree
    tolerance: float = TOLERANCE[torch.float32]
    plain: tuple[Callable, tuple] | None = None  # a function of tensors, for a compiler, and its arguments
    loops: tuple[str, ...] = ()  # calls that no CUDA graph holds

    def check(self) -> float:
        """The largest difference of the two calls that must agree.

        Raises:
            AssertionError: they do not.
        """
        one, two = (call() for call in self.same)
        one, two = ((parts,) if torch.is_tensor(parts) else parts for parts in (one, two))
        torch.testing.assert_close(two, one, rtol=self.tolerance, atol=self.tolerance, check_dtype=False)
        return max((a.double() - b.double()).abs().max().item() for a, b in zip(one, two, strict=True))


def torch_step(x, score):
    """What a sampler in plain torch does: torch's own noise, then the update."""
    return x.add_(score, alpha=0.1).add_(torch.randn_like(x), alpha=0.4)


def torch_cld_step(u, score):
    """One merged step of SSCS in plain torch: torch's own noise, then both halves."""
    x, v = u.chunk(2, dim=1)
    z_x, z_v = torch.randn_like(x), torch.randn_like(v)
    moved = 0.9 * x - 0.3 * v - 0.1 * score + 0.3 * z_x
    v.mul_(0.4).add_(x, alpha=0.2).add_(score, alpha=0.7).add_(z_x, alpha=-0.2).add_(z_v, alpha=0.5)
    return x.copy_(moved)


def torch_perturb(x, sigma):
    """x + sigma z with torch's own noise."""
    return x + sigma[:, None, None, None] * torch.randn_like(x)


def torch_dsm(score, sigma, z):
    """Loss per sample and gradient, with the noise kept from the perturbation."""
    residual = sigma[:, None, None, None] * score + z
    return 0.5 * residual.square().flatten(1).sum(1), sigma[:, None, None, None] * residual


def torch_upsample(x, sigma):
    """Bicubic interpolation, then torch's own noise."""
    y = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    return y + sigma * torch.randn_like(y) if sigma else y


def torch_norm(x, gamma, alpha, beta, elu=True):
    """The released network's CondInstanceNorm++ and ELU, op for op."""
    mean = x.mean(dim=(2, 3))
    shift = (mean - mean.mean(dim=1, keepdim=True)) / torch.sqrt(mean.var(dim=1, keepdim=True) + 1e-5)
    h = F.instance_norm(x, eps=1e-5) + (alpha * shift)[..., None, None]
    y = gamma[..., None, None] * h + beta[..., None, None]
    return F.elu(y) if elu else y


def rewritten_norm(x, gamma, alpha, beta, elu=True):
    """The same as the statistics once and one affine map, in float32: the form that a compiler can do most with."""
    variance, mean = torch.var_mean(x.float(), dim=(2, 3), correction=0)
    spread, centre = torch.var_mean(mean, dim=1, keepdim=True)
    scale = gamma * torch.rsqrt(variance + 1e-5)
    shift = gamma * alpha * (mean - centre) * torch.rsqrt(spread + 1e-5) + beta - scale * mean
    y = scale[..., None, None] * x + shift[..., None, None]
    return (F.elu(y) if elu else y).to(x.dtype)


def random(shape, device, seed, dtype=torch.float32):
    """Standard normals of torch's generator on the device."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(*shape, generator=generator, device=device).to(dtype)


def langevin_step(shape, device, seed=0, score_dtype=torch.float32) -> Case:
    """x (B, C, H, W) float32, and a score in a dtype of its own."""
    x, score = random(shape, device, 2 * seed), random(shape, device, 2 * seed + 1, score_dtype)
    calls = {"torch": lambda: torch_step(x, score), "fused": lambda: ops.langevin_step(x, score, 1e-9, 1e-9, **DRAW)}
    same = [lambda op=op: op(x.clone(), score, 0.1, 0.4, **DRAW) for op in (reference.langevin_step, ops.langevin_step)]
    return Case(x.numel() * (8 + score.element_size()), calls, same, plain=(torch_step, (x, score)))


def cld_step(shape, device, seed=0) -> Case:
    """A merged step of SSCS for positions of this shape."""
    samples, channels, *size = shape
    u, score = random((samples, 2 * channels, *size), device, 2 * seed), random(shape, device, 2 * seed + 1)
    calls = {"torch": lambda: torch_cld_step(u, score), "fused": lambda: ops.cld_step(u, score, *SSCS, **DRAW)}
    same = [lambda op=op: op(u.clone(), score, *SSCS, **DRAW) for op in (reference.cld_step, ops.cld_step)]
    return Case(20 * score.numel(), calls, same, plain=(torch_cld_step, (u, score)))


def perturb(shape, device, seed=0) -> Case:
    """Images with a noise level each."""
    x, sigma = random(shape, device, 2 * seed), random(shape[:1], device, 2 * seed + 1).abs() + 0.1
    calls = {"torch": lambda: torch_perturb(x, sigma), "fused": lambda: ops.perturb(x, sigma, **DRAW)}
    same = [lambda op=op: op(x, sigma, **DRAW) for op in (reference.perturb, ops.perturb)]
    return Case(8 * x.numel(), calls, same, plain=(torch_perturb, (x, sigma)))


def dsm_loss(shape, device, seed=0) -> Case:
    """Loss and gradient: torch reads the noise that the op makes again."""
    score, sigma = random(shape, device, 2 * seed), random(shape[:1], device, 2 * seed + 1).abs() + 0.1
    z = noise.normal(shape, stream=noise.DSM, device=device, **DRAW)
    calls = {"torch": lambda: torch_dsm(score, sigma, z), "fused": lambda: _fused_dsm(score, sigma)}
    return Case(8 * score.numel(), calls, list(calls.values()), plain=(torch_dsm, (score, sigma, z)))


def _fused_dsm(score, sigma):
    """The op behind `ops.dsm_loss` as training calls it: loss and gradient in one pass, the noise made again."""
    return torch.ops.langevin_ext.dsm_loss(score, sigma, 2.0, True, DRAW["seed"], DRAW["step"], 0, noise.DSM)


def upsample_bicubic2x(shape, device, seed=0, sigma=0.0) -> Case:
    """From images of this shape; the values agree where there is no noise."""
    x = random(shape, device, seed)
    calls = {
        "torch": lambda: torch_upsample(x, sigma),
        "fused": lambda: ops.upsample_bicubic2x(x, sigma=sigma, **DRAW),
    }
    same = [lambda: torch_upsample(x, 0.0), lambda: ops.upsample_bicubic2x(x)]
    return Case(20 * x.numel(), calls, same, plain=(torch_upsample, (x, sigma)))


def normals(shape, device, seed=0) -> Case:
    """Standard normals; the plain-torch ones are torch's own."""
    calls = {
        "torch": lambda: torch.randn(shape, device=device),
        "fused": lambda: noise.normal(shape, seed, device=device),
    }
    same = [lambda op=op: op(shape, seed=seed, device=device) for op in (reference.philox_normal, ops.philox_normal)]
    size = torch.Size(shape).numel()
    return Case(4 * size, calls, same, tolerance=0.0)


def norm(shape, device, seed=0, dtype=torch.float32, channels_last=False, residual=False) -> Case:
    """CondInstanceNorm++ and ELU of features (B, C, H, W), or of features + residual."""
    x, weight, level = _features(shape, device, seed, dtype, channels_last)
    other = random(shape, device, seed + 1, dtype).to(memory_format=_format(channels_last)) if residual else None
    parts = weight[level].split(shape[1], dim=1)
    table = weight.float()

    def fused():
        return ops.instance_norm_plus(x, table, level, elu=True, residual=other)

    def exact():
        return summed_norm(torch_norm, x, other, *parts, dtype=torch.float32)

    calls = {"torch": lambda: summed_norm(torch_norm, x, other, *parts), "fused": fused}
    moved = (2 if other is None else 4) * x.numel() * x.element_size()
    plain = (partial(summed_norm, rewritten_norm), (x, other, *parts))
    return Case(moved, calls, [exact, fused], TOLERANCE[dtype], plain)


def summed_norm(form, x, residual, gamma, alpha, beta, dtype=None):
    """A form of the norm of x, or of x + residual and that sum; computed in another dtype if asked."""
    total = x if residual is None else x + residual
    y = form(*(tensor.to(dtype or x.dtype) for tensor in (total, gamma, alpha, beta)))
    return y if residual is None else (y, total)


def pooled_norm(shape, device, seed=0, dtype=torch.float32, channels_last=False) -> Case:
    """CondInstanceNorm++ and the mean over 5x5 pixels behind it; also the fused norm with torch's mean behind it."""
    x, weight, level = _features(shape, device, seed, dtype, channels_last)
    parts, table = weight[level].split(shape[1], dim=1), weight.float()
    fused = _into_memory(x, table, level, pool=True)

    def exact():
        return pooled(torch_norm, *(tensor.float() for tensor in (x, *parts)))

    calls = {
        "torch": lambda: pooled(torch_norm, x, *parts),
        "fused norm, torch's mean": lambda: _mean_5x5(ops.instance_norm_plus(x, table, level)),
        "fused": fused,
    }
    plain = (partial(pooled, rewritten_norm), (x, *parts))
    return Case(2 * x.numel() * x.element_size(), calls, [exact, fused], TOLERANCE[dtype], plain)


def norm_into_memory(shape, device, seed=0, channels_last=False) -> Case:
    """CondInstanceNorm++ with ELU; the fused one is given its y, as in an engine: new memory takes longer than that."""
    x, weight, level = _features(shape, device, seed, torch.float32, channels_last)
    parts, fused = weight[level].split(shape[1], dim=1), _into_memory(x, weight, level, pool=False)
    calls = {"torch": lambda: torch_norm(x, *parts), "fused": fused}
    plain = (rewritten_norm, (x, *parts))
    return Case(2 * x.numel() * x.element_size(), calls, [calls["torch"], fused], TOLERANCE[x.dtype], plain)


def _into_memory(x, table, level, *, pool):
    """The norm, with the 5x5 mean or with ELU, into memory that is there."""
    core, y, stats = _native.core_for(x), torch.empty_like(x), norm_forms.room_for_stats(x)
    scratch = stats.new_empty(core.instance_norm_plus_scratch(x, False))
    images, options = (x, None, None, y), (False, 1e-5, not pool)

    def fused():
        threads = torch.get_num_threads()
        norm_forms.launch(core, 0, images, (table, level, stats), scratch, options, threads, pool=pool)
        return y

    return fused


def pooled(form, x, gamma, alpha, beta):
    """A form of the norm, and the mean over 5x5 pixels of it."""
    return _mean_5x5(form(x, gamma, alpha, beta, elu=False))


def _mean_5x5(y):
    return F.avg_pool2d(y, 5, stride=1, padding=2)


def norm_backward(shape, device, seed=0, dtype=torch.float32, channels_last=False) -> Case:
    """Gradients of CondInstanceNorm++ and ELU in the features and in the table of weights."""
    x, weight, level = _features(shape, device, seed, dtype, channels_last)
    table = weight.float()
    grad = random(shape, device, seed + 1, dtype).to(memory_format=_format(channels_last))
    stats = torch.ops.langevin_ext.instance_norm_plus(x, None, table, level, False, 1e-5, True)[2]
    calls = {
        "torch": _plain_backward(x, weight, level, grad),
        "fused": lambda: torch.ops.langevin_ext.instance_norm_plus_backward(
            grad, None, x, table, level, stats, False, 1e-5, True, True, True
        ),
    }
    exact = _plain_backward(x.float(), table, level, grad.float())
    return Case(
        3 * x.numel() * x.element_size(),
        calls,
        [lambda: _in_units(exact()), lambda: _in_units(calls["fused"](), exact())],
        2 * TOLERANCE[dtype],
        loops=("torch",),
    )


def _plain_backward(x, weight, level, grad):
    """A call of autograd on the op-for-op computation, whose graph is kept."""
    with torch.enable_grad():
        x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
        y = torch_norm(x, *weight[level].split(x.shape[1], dim=1))
    return lambda: torch.autograd.grad(y, (x, weight), grad, retain_graph=True)


def _in_units(grads, like=None):
    """Each gradient over the largest entry of its like."""
    return tuple(
        grad.float() / unit.abs().max().float()
        for grad, unit in zip(grads, grads if like is None else like, strict=True)
    )


def _format(channels_last):
    return torch.channels_last if channels_last else torch.contiguous_format


def _features(shape, device, seed, dtype, channels_last):
    """Features, a table of weights for ten levels, and the level of each sample."""
    x = random(shape, device, seed, dtype).to(memory_format=_format(channels_last))
    weight = (1 + 0.1 * random((10, 3 * shape[1]), device, seed + 2)).to(dtype)
    return x, weight, torch.arange(shape[0], device=device) % 10


def cases(batch, size, channels, device="cpu") -> dict[str, Callable[..., Case]]:
    """The rows of a table of all ops in float32: images of `size` pixels, features of `channels` and half the size.

    Returns:
        {name: builder of the case, called with seed=}.
    """
    image, low = (batch, 3, size, size), (batch, 3, size // 2, size // 2)
    features = (batch, channels, size // 2, size // 2)
    return {
        "langevin_step": partial(langevin_step, image, device),
        "cld_step": partial(cld_step, image, device),
        "perturb": partial(perturb, image, device),
        "dsm_loss+gradient": partial(dsm_loss, image, device),
        "upsample_bicubic2x": partial(upsample_bicubic2x, low, device),
        "upsample_bicubic2x+noise": partial(upsample_bicubic2x, low, device, sigma=0.3),
        "instance_norm_plus+ELU NCHW": partial(norm, features, device),
        "instance_norm_plus+ELU NHWC": partial(norm, features, device, channels_last=True),
    }


def copy_of(moved, device="cpu"):
    """A copy that reads and writes so many bytes in all."""
    source = torch.ones(max(moved // 2, 4) // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)
