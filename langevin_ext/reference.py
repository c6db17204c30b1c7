"""Every op in plain torch: the oracle of the tests, the fallback without the native core, the baseline of benchmarks.

The names and arguments are those of `langevin_ext.ops`. Arithmetic is done in float32, or in float64 for float64
input; half precision input is rounded once, at the end. Only the noise is more than plain arithmetic: its normals
are defined by single-rounded fused multiply-adds, reproduced here exactly in float64.
"""

import math
import operator

import torch

from ._compiler import assume_constant_result
from ._transforms import transformed as _transformed

# Coefficients of log1p, sin and cos, lowest first, fitted by csrc/fit_polynomials.py; the same as in csrc/philox.h.
LOG = [
    float.fromhex(c)
    for c in (
        "0x1.555506p-2",
        "-0x1.000422p-2",
        "0x1.99d2f4p-3",
        "-0x1.54fbc8p-3",
        "0x1.1e6f28p-3",
        "-0x1.f01124p-4",
        "0x1.215b08p-3",
        "-0x1.30287ap-3",
    )
]
SIN = [float.fromhex(c) for c in ("-0x1.555546p-3", "0x1.11077ep-7", "-0x1.9956b6p-13")]
COS = [float.fromhex(c) for c in ("0x1.55554ap-5", "-0x1.6c0c1ap-10", "0x1.99e0eep-16")]
LN2 = float.fromhex("0x1.62e43p-1")
TURN = float.fromhex("0x1.921fb6p-30")  # 2 pi 2^-32 in float32
MASK32 = 0xFFFFFFFF
CLD_STREAMS = 5, 6  # noise.CLD_X and noise.CLD_V


def philox_words(shape, *, seed, step=0, first=0, stream=0, device=None) -> torch.Tensor:
    """Philox4x32-10 words as int64 in [0, 2^32); see `langevin_ext.noise.words`."""
    check_counter("philox_words", seed, step, first, stream, shape)
    samples, elements = shape[0], 1
    for size in shape[1:]:
        elements *= size
    blocks = (elements + 3) // 4
    counter = [
        torch.arange(blocks, dtype=torch.int64, device=device).expand(samples, blocks),
        torch.full((1, 1), step, dtype=torch.int64, device=device),
        (first + torch.arange(samples, dtype=torch.int64, device=device))[:, None],
        torch.full((1, 1), stream, dtype=torch.int64, device=device),
    ]
    lanes = philox_rounds(counter, seed & MASK32, (seed >> 32) & MASK32)
    lanes = torch.stack([lane.expand(samples, blocks) for lane in lanes], dim=-1)
    return lanes.reshape(samples, 4 * blocks)[:, :elements].reshape(shape).contiguous()


def philox_rounds(counter, key0, key1, rounds=10):
    """The Philox4x32 bijection on four int64 tensors of 32-bit words (Salmon et al. 2011, section 4.3)."""
    c0, c1, c2, c3 = counter
    for _ in range(rounds):
        high0, low0 = _multiply_high_low(c0, 0xD2511F53)
        high1, low1 = _multiply_high_low(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0, key1 = (key0 + 0x9E3779B9) & MASK32, (key1 + 0xBB67AE85) & MASK32
    return c0, c1, c2, c3


def _multiply_high_low(a, constant):
    """The two halves of the 64-bit product, without the sign bit of int64 getting in the way."""
    low = (a & 0xFFFF) * constant
    high = (a >> 16) * constant + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def philox_normal(shape, *, seed, step=0, first=0, stream=0, device=None) -> torch.Tensor:
    """Standard normals, float32, bit-equal to the native core; see `langevin_ext.noise.normal`."""
    elements = 1
    for size in shape[1:]:
        elements *= size
    blocks = (elements + 3) // 4
    words = philox_words((shape[0], 4 * blocks), seed=seed, step=step, first=first, stream=stream, device=device)
    return box_muller(words).reshape(shape[0], 4 * blocks)[:, :elements].reshape(shape).contiguous()


def box_muller(words):
    """Pairs of words (w0, w1) to pairs of normals: sqrt(-2 ln u0) (cos, sin)(2 pi u1), u = (w + 1/2) 2^-32.

    The angle is reduced exactly in integers; u0 near 1 is taken from the other side, so that ln u0 keeps its relative
    accuracy. Each operation rounds once to float32, as in philox.h.
    """
    w0, w1 = words.reshape(-1, 2).unbind(1)
    # torch's float32 square root is not always correctly rounded; float64's, rounded to float32, is.
    radius = torch.sqrt(-2.0 * _log_uniform(w0).double()).float()
    quadrant = ((w1 + 2**29) >> 30) & 3
    rest = w1 - (quadrant << 30)
    rest = torch.where(rest >= 2**31, rest - 2**32, rest)
    a = _fma(rest.to(torch.float32), TURN, TURN / 2)
    s = a * a
    sine = _fma(a * s, _horner(s, SIN), a)
    cosine = _fma(s * s, _horner(s, COS), _fma(s, -0.5, 1.0))
    swap = (quadrant & 1).bool()
    along = torch.where(swap, sine, cosine)
    across = torch.where(swap, cosine, sine)
    along = torch.where((quadrant == 1) | (quadrant == 2), -along, along)
    across = torch.where(quadrant >= 2, -across, across)
    return torch.stack([radius * along, radius * across], dim=1)


def _log_uniform(word):
    """ln((word + 1/2) 2^-32), float32: exponent and mantissa in [2/3, 4/3), then log1p of f = mantissa - 1."""
    near_one = word >= 0xAAAAAAAB  # u > 2/3: f = -(2^32 - word - 1/2) 2^-32 without cancellation
    scaled = word.to(torch.float32) + 0.5
    bits = scaled.view(torch.int32)
    exponent = (bits - 0x3F2AAAAB) >> 23
    f = (bits - (exponent << 23)).view(torch.float32) - 1.0
    f = torch.where(near_one, ((MASK32 - word).to(torch.float32) + 0.5) * -(2.0**-32), f)
    exponent = torch.where(near_one, 0, exponent - 32).to(torch.float32)
    log1p = _fma(f * f, _fma(f, _horner(f, LOG), -0.5), f)
    return _fma(exponent, LN2, log1p)


def _horner(t, coefficients):
    result = torch.full_like(t, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = _fma(result, t, c)
    return result


def _fma(a, b, c):
    """a b + c of float32 values, rounded once.

    The product is exact in float64; the sum is rounded to odd (Boldo and Melquiond 2008), which makes the rounding to
    float32 that follows the only one.
    """
    c = torch.as_tensor(c, dtype=torch.float64, device=a.device)
    product = a.double() * (b.double() if torch.is_tensor(b) else b)
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)
    bits = total.view(torch.int64)
    even = (bits & 1) == 0
    step = torch.where((error > 0) == (total > 0), 1, -1)
    return torch.where(even & (error != 0), bits + step, bits).view(torch.float64).to(torch.float32)


def _multiply_add(a, b, c):
    """a b + c: in float32 with the one rounding of the native kernels, in float64 and for derivatives with two."""
    plain = a * b + c
    if a.dtype != torch.float32:
        return plain
    # _fma goes through integers and has no derivative.
    return plain if _transformed() or plain.requires_grad else _fma(a, b, c)


def check_counter(name, seed, step, first, stream, shape):
    """Raises ValueError where a coordinate of the noise does not fit its words."""
    for label, value in (("seed", seed), ("step", step), ("first", first), ("stream", stream)):
        if not isinstance(value, int | torch.SymInt):
            try:
                operator.index(value)
            except TypeError:
                raise ValueError(f"{name}: {label} must be an integer, got {value!r}") from None
    for label, value, limit in (("seed", seed, 2**64), ("step", step, 2**32), ("stream", stream, 2**32)):
        if not 0 <= value < limit:
            raise ValueError(f"{name}: {label} must be in [0, 2^{limit.bit_length() - 1}), got {value}")
    if not shape:
        raise ValueError(f"{name}: shape must be (samples, ...), got ()")
    samples = max(shape[0], 1)
    if first < 0 or first + samples > 2**32:
        raise ValueError(f"{name}: first must be in [0, 2^32 - {samples}], got {first}")
    elements = 1
    for size in shape[1:]:
        elements *= size
    if elements >= 2**34:
        raise ValueError(f"{name}: a sample must have fewer than 2^34 elements, got {elements}")


def _per_sample(values, x):
    return values.to(_compute_dtype(x)).view(-1, *[1] * (x.dim() - 1))


def _compute_dtype(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _noise_like(x, seed, step, first, stream):
    z = philox_normal(tuple(x.shape), seed=seed, step=step, first=first, stream=stream, device=x.device)
    return z.to(_compute_dtype(x))


def langevin_step(x, score, score_coef, noise_coef, *, seed, step, first=0, stream=0, mask=None) -> torch.Tensor:
    """x <- x + score_coef score + noise_coef z in place; see `langevin_ext.ops.langevin_step`."""
    z = _noise_like(x, seed, step, first, stream)
    moved = x + score_coef * score.to(x.dtype) + noise_coef * z
    return x.copy_(moved if mask is None else torch.where(mask, x, moved))


def langevin_table_step(x, score, table, place, *, stream=0, mask=None) -> torch.Tensor:
    """A step whose numbers lie in tensors, in place; see `langevin_ext.ops.langevin_table_step`."""
    row, seed, first = place.tolist()
    if not 0 <= row < len(table):
        return x.copy_(torch.full_like(x, math.nan) if mask is None else torch.where(mask, x, math.nan))
    score_coef, noise_coef, step, _ = table[row].tolist()
    at = {"seed": seed % 2**64, "step": int(step), "first": first, "stream": stream}
    return langevin_step(x, score, score_coef, noise_coef, mask=mask, **at)


def advance_row(place, table, level) -> None:
    """To the next row, in place; see `langevin_ext.ops.advance_row`."""
    place[0] += 1
    row = place[0].item()
    level.fill_(int(table[row, 3]) if 0 <= row < len(table) else -1)


def cld_step(u, score, a, b, noise, *, seed, step, first=0) -> torch.Tensor:
    """(x, v) <- A (x, v) + b s + N (z_x, z_v) in place; see `langevin_ext.ops.cld_step`."""
    x, v = u.chunk(2, dim=1)
    noise_xx, noise_vx, noise_vv = noise
    dx, dv = (a[0] - 1) * x + a[1] * v, a[2] * x + (a[3] - 1) * v
    if score is not None:
        dx, dv = dx + b[0] * score, dv + b[1] * score
    if noise_xx or noise_vx:
        z_x = _noise_like(x, seed, step, first, CLD_STREAMS[0])
        dx, dv = dx + noise_xx * z_x, dv + noise_vx * z_x
    if noise_vv:
        dv = dv + noise_vv * _noise_like(v, seed, step, first, CLD_STREAMS[1])
    return u.copy_(torch.cat([x + dx, v + dv], dim=1))


def perturb(x, sigma, *, seed, step, first=0, stream=3) -> torch.Tensor:
    """x + sigma z; see `langevin_ext.ops.perturb`."""
    z = _noise_like(x, seed, step, first, stream)
    z = torch.empty_like(x, dtype=z.dtype).copy_(z)  # x's memory format
    return _multiply_add(z, _per_sample(sigma, x), x.to(z.dtype)).to(x.dtype)


def dsm_loss(score, sigma, *, seed, step, first=0, stream=3, anneal_power=2.0) -> torch.Tensor:
    """1/2 sigma^(p-2) |sigma score + z|^2 per sample; see `langevin_ext.ops.dsm_loss`."""
    residual = _dsm_residual(score, sigma, seed, step, first, stream)
    return 0.5 * sigma.to(residual.dtype) ** (anneal_power - 2.0) * residual.square().flatten(1).sum(1)


def dsm_loss_and_grad(score, sigma, *, seed, step, first=0, stream=3, anneal_power=2.0):
    """`dsm_loss` and its gradient in the score, sigma^(p-1) (sigma score + z), in score's dtype."""
    residual = _dsm_residual(score, sigma, seed, step, first, stream)
    level = sigma.to(residual.dtype)
    loss = 0.5 * level ** (anneal_power - 2.0) * residual.square().flatten(1).sum(1)
    return loss, (_per_sample(level ** (anneal_power - 1.0), residual) * residual).to(score.dtype)


def _dsm_residual(score, sigma, seed, step, first, stream):
    z = _noise_like(score, seed, step, first, stream)
    return _per_sample(sigma, score) * score.to(z.dtype) + z


def instance_norm_plus(x, weight, level=None, *, form="official", eps=1e-5, elu=False, residual=None):
    """Conditional instance normalisation++; see `langevin_ext.ops.instance_norm_plus`."""
    total = x if residual is None else x + residual
    channels = x.shape[1]
    compute = total.to(_compute_dtype(x))
    rows = weight.to(compute.dtype)[torch.zeros(len(x), dtype=torch.int64, device=x.device) if level is None else level]
    gamma, alpha, *beta = rows[:, :, None, None].split(channels, dim=1)
    beta = beta[0] if beta else torch.zeros_like(gamma)
    mean = compute.mean(dim=(2, 3), keepdim=True)
    variance = (compute - mean).square().mean(dim=(2, 3), keepdim=True)
    normalised = (compute - mean) * torch.rsqrt(variance + eps)
    centred = mean - mean.mean(dim=1, keepdim=True)
    spread = centred.square().sum(dim=1, keepdim=True) / max(channels - 1, 1)  # unbiased; one channel has no spread
    shift = centred * torch.rsqrt(spread + eps)
    if form == "official":
        y = gamma * (normalised + alpha * shift) + beta
    else:
        y = gamma * normalised + alpha * shift + beta
    y = (torch.nn.functional.elu(y) if elu else y).to(x.dtype)
    return y if residual is None else (y, total)


def upsample_bicubic2x(x, *, a=-0.75, sigma=0.0, seed=0, step=0, first=0, stream=11, input_dtype=None):
    """bicubic(x) + sigma z, and the next network input; see `langevin_ext.ops.upsample_bicubic2x`."""
    weights = bicubic2x_weights(a, x.dtype)
    y = _double_axis(_double_axis(x, 2, weights), 3, weights)
    if sigma:
        y = perturb(y, y.new_full(y.shape[:1], sigma), seed=seed, step=step, first=first, stream=stream)
    if input_dtype is None:
        return y
    u = (2 * y - 1).to(input_dtype)
    return y, u if _transformed() else u.contiguous(memory_format=torch.channels_last)  # which vmap does not know


@assume_constant_result
def bicubic2x_weights(a, dtype):
    """Keys' w(1/4), w(3/4), w(5/4), w(7/4) as floats, rounded to `dtype`."""
    inner = [((a + 2) * s - (a + 3)) * s * s + 1 for s in (0.25, 0.75)]
    outer = [((a * s - 5 * a) * s + 8 * a) * s - 4 * a for s in (1.25, 1.75)]
    return torch.tensor(inner + outer, dtype=torch.float64).to(dtype).tolist()


def _double_axis(x, axis, weights):
    """Cubic convolution along one axis; a quarter of a pixel before each pixel and a quarter behind it."""
    quarter, three, five, seven = weights
    size = x.shape[axis]
    padded = x.index_select(axis, torch.arange(-2, size + 2, device=x.device).clamp(0, size - 1))
    x0, x1, x2, x3, x4 = (padded.narrow(axis, j, size) for j in range(5))

    def between(far, near, next_, last):
        value = _multiply_add(next_, three, _multiply_add(far, five, seven * last))
        return _multiply_add(near, quarter, value)

    return torch.stack([between(x3, x2, x1, x0), between(x1, x2, x3, x4)], axis + 1).flatten(axis, axis + 1)
