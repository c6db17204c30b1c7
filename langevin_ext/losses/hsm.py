"""Hybrid score matching, the objective of critically-damped Langevin diffusion (CLD, arXiv:2112.07068)."""

import torch

from .. import noise
from .common import check_score

WEIGHTINGS = ("reweighted", "likelihood")
SPACINGS = ("linear", "quadratic")
T_MIN = 1e-5  # the smallest time of training in the released code


def hsm(model, x, t, *, seed, step, first=0, weighting="reweighted", velocity="hybrid") -> torch.Tensor:
    """Hybrid score matching (Dockhorn, Vahdat, Kreis 2022, arXiv:2112.07068, section 3.2).

        u_t = A(t) (x, v_0) + L eps,     grad_v log p(u_t | x) = -l_t eps_v
        reweighted:  loss[i] = |s(u_t, t) / l_t + eps_v|^2
        likelihood:  loss[i] = Gamma beta(t) |s(u_t, t) + l_t eps_v|^2

    summed over the D pixels of a sample; A, L, l_t, beta and Gamma are those of `model.process`. velocity="hybrid":
    v_0 is integrated out (v_0 = 0, and L has its variance). "sampled": v_0 ~ N(0, gamma M) is drawn, which is
    denoising score matching on (x, v). The gradients of "likelihood" have one mean with both; the first has the smaller
    l_t and the lower minimum. For data N(m, r I) no network is below D (1 - (S^-1)_vv / l_t^2), S the marginal
    covariance at t, with "reweighted"; the zero score has D.
    That l_t is bounded, as the caption of figure 6 has it, holds through the process's numerical_eps alone.

    Args:
        model: s = model(u, t), the score in v, (B, C, H, W) from u (B, 2C, H, W); `model.process`, a
            `CriticallyDamped`.
        x: (B, C, H, W) float, the data.
        t: (B,) float, forward times in (0, 1].
        seed, step: integers, the coordinates of the noise with `first`, the global index of the first sample.
        weighting: "reweighted", which is for the quality of samples, or "likelihood".
        velocity: "hybrid" or "sampled".

    Returns:
        (B,) float32 (float64 for float64 x), differentiable in the model's parameters.

    Raises:
        TypeError, ValueError: x or t has the wrong type, shape or range, or a choice is unknown.

    The noise depends on (seed, step, first + i) alone (streams CLD_X and CLD_V).
    """
    _check(x, t, weighting)
    process, channels = model.process, x.shape[1]
    time = t.to(torch.float64).reshape(-1, 1, 1, 1)
    draw = {"seed": seed, "step": step, "first": first, "device": x.device}
    eps_x = noise.normal(x.shape, stream=noise.CLD_X, **draw)
    # v_0 lies behind eps_v in one stream, which a draw of eps_v alone begins as well
    eps_v, v0 = noise.normal((len(x), 2 * channels, *x.shape[2:]), stream=noise.CLD_V, **draw).split(channels, dim=1)
    v0 = (process.gamma * process.mass) ** 0.5 * v0 if velocity == "sampled" else torch.zeros_like(eps_v)
    axx, axv, avx, avv = process.mean_matrix(time)
    lxx, lvx, lvv = process.cholesky(time, velocity)
    u = torch.cat([axx * x + axv * v0 + lxx * eps_x, avx * x + avv * v0 + lvx * eps_x + lvv * eps_v], dim=1)
    score = model(u.to(x.dtype), t)
    check_score("hsm", score, x)
    if weighting == "reweighted":
        loss = (score * lvv.to(x.dtype) + eps_v).square()  # l_t = 1 / L_vv
    else:
        loss = process.friction * process.beta(time) * (score + eps_v / lvv).square()
    return loss.flatten(1).sum(1).to(torch.float64 if x.dtype == torch.float64 else torch.float32)


def times(n, *, seed, step, first=0, t_min=T_MIN, spacing="quadratic", device=None) -> torch.Tensor:
    """Times for `hsm`: (n,) float32 in [t_min, 1]; time i depends on (seed, step, first + i) alone (stream LABELS).

        linear: t = t_min + (1 - t_min) r;     quadratic: t = t_min + (1 - t_min) r^2,     r uniform on (0, 1)

    The paper trains with "linear" (arXiv:2112.07068); "quadratic" sees more of the times near the data, as the
    quadratic striding of the samplers does. The optimum is the same.

    Args:
        n: number of samples.
        seed, step, first: the coordinates of the noise.
        t_min: the smallest time, in [0, 1); 1e-5 in the released code.
        spacing: "linear" or "quadratic".
        device: of the result, the CPU by default.

    Raises:
        ValueError: t_min is out of range, or the spacing is unknown.
    """
    if not 0 <= t_min < 1:
        raise ValueError(f"times: argument t_min must be in [0, 1), got {t_min}")
    if spacing not in SPACINGS:
        raise ValueError(f"times: argument spacing must be one of {', '.join(SPACINGS)}, got {spacing!r}")
    r = noise.uniform((n, 1), seed, step=step, first=first, stream=noise.LABELS, device=device)[:, 0]
    return t_min + (1 - t_min) * (r if spacing == "linear" else r.square())


def _check(x, t, weighting):
    if not x.is_floating_point() or x.dim() != 4:
        raise TypeError(f"hsm: x must be a float tensor (B, C, H, W), got {x.dtype} {tuple(x.shape)}")
    if not t.is_floating_point() or t.shape != x.shape[:1]:
        raise ValueError(f"hsm: t must be float of shape ({len(x)},), got {t.dtype} {tuple(t.shape)}")
    if t.device.type == "cpu" and len(t) and not 0 < t.min().item() <= t.max().item() <= 1:
        raise ValueError(f"hsm: t must be in (0, 1], got {t.min().item():g} to {t.max().item():g}")
    if weighting not in WEIGHTINGS:
        raise ValueError(f"hsm: weighting must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}")
