"""Score networks of critically-damped Langevin diffusion (CLD; Dockhorn, Vahdat, Kreis 2022, arXiv:2112.07068)."""

import math

import torch
from torch import nn

from ..processes import CriticallyDamped
from .mlp import layers
from .refinenet import Conv3x3, RefineNet

__all__ = ["CLDNet"]

NETWORKS = ("mlp", "refinenet")
FREQUENCIES = 4  # of the time features: this many octaves of sines and cosines


class CLDNet(nn.Module):
    """Velocity score network with the mixed score of the released code (arXiv:2112.07068).

        s(u, t) = -v / S_vv(t) - l_t alpha(u, t),     u = (x, v)

    S_vv, the variance of v given x_0, and l_t are those of `process`; alpha is learned. The first term is the score of
    the velocity of point-like data at x = 0 with x integrated out; near t = 1, where the law is normal, it is exact.
    What alpha sees is x and v / sqrt(S_vv), both of order one for data of about unit variance, and the time:

        mlp        r = sqrt(t) and sines and cosines of pi 2^j r, j = 0 .. 3, beside x and v
        refinenet  the conditional norms' row floor(levels r): a step function of t, with shorter steps near the data,
                   where S_vv and l_t change the most; what depends on t within a step is in these two alone

    Initial weights come from torch's global generator.

    Args:
        shape: (C, H, W) of the data; a vector is (D, 1, 1). "refinenet" needs H and W of at least 8.
        network: "mlp" or "refinenet", the RefineNet of `NCSN` with 2C channels in and C out.
        hidden, activation: widths of the hidden layers of "mlp", and what follows each, see `layers`; piecewise linear
            functions learn modes that lie close together several times faster than smooth ones.
        ngf: base width of "refinenet".
        levels: number of rows of its conditional norms.
        beta, mass, gamma, numerical_eps: see `CriticallyDamped`; 1e-6 suits toy data, as in the released code.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        shape=(2, 1, 1),
        network="mlp",
        hidden=(256, 256, 256),
        activation="relu",
        ngf=64,
        levels=32,
        beta=4.0,
        mass=0.25,
        gamma=0.04,
        numerical_eps=1e-6,
    ):
        super().__init__()
        shape = tuple(shape)
        if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
            raise ValueError(f"CLDNet: shape must be (C, H, W), a vector (D, 1, 1), got {shape}")
        if network not in NETWORKS:
            raise ValueError(f"CLDNet: network must be one of {', '.join(NETWORKS)}, got {network!r}")
        for name, value in (("ngf", ngf), ("levels", levels)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"CLDNet: {name} must be a positive integer, got {value!r}")
        self.process = CriticallyDamped(beta, mass, gamma, numerical_eps)
        self.shape, self.network, self.ngf, self.levels = shape, network, ngf, levels
        self.hidden, self.activation = tuple(hidden), activation
        if network == "mlp":
            size = math.prod(shape)
            self.net = layers(2 * size + 1 + 2 * FREQUENCIES, self.hidden, size, activation, "CLDNet")
        else:
            if min(shape[1:]) < 8:
                raise ValueError(f"CLDNet: shape must have H and W of at least 8 for 'refinenet', got {shape}")
            self.net = RefineNet(2 * shape[0], ngf, levels)
            self.net.end_conv = Conv3x3(ngf, shape[0])
            self.net.to(memory_format=torch.channels_last)

    def config(self):
        """Everything `langevin_ext.models.build` needs, as plain numbers, strings and lists."""
        return {
            "class": "CLDNet",
            "shape": list(self.shape),
            "network": self.network,
            "hidden": list(self.hidden),
            "activation": self.activation,
            "ngf": self.ngf,
            "levels": self.levels,
            **self.process.config(),
        }

    def forward(self, u, t):
        """The score in the velocity, s(u, t).

        Args:
            u: (B, 2C, H, W) floating, x then v.
            t: (B,) floating, forward time in [0, 1].

        Returns:
            (B, C, H, W) like u.

        Raises:
            ValueError: u or t has another shape.
        """
        channels, height, width = self.shape
        if u.dim() != 4 or tuple(u.shape[1:]) != (2 * channels, height, width):
            raise ValueError(f"CLDNet: u must be (B, {2 * channels}, {height}, {width}), got {tuple(u.shape)}")
        if not torch.is_tensor(t) or not t.is_floating_point() or t.shape != u.shape[:1]:
            got = f"{t.dtype} {tuple(t.shape)}" if torch.is_tensor(t) else type(t).__name__
            raise ValueError(f"CLDNet: t must be float of shape ({len(u)},), one for each sample, got {got}")
        x, v = u.chunk(2, dim=1)
        time = t.to(torch.float64).view(-1, 1, 1, 1)
        s = self.process.stabilised(time)
        deviation, scale = s.vv.sqrt().to(u.dtype), (s.xx / s.det).sqrt().to(u.dtype)  # l_t, as `score_scale` has it
        scaled = v / deviation
        return -scaled / deviation - scale * self._alpha(x, scaled, t)

    def _alpha(self, x, v, t):
        """The network: x, v (B, C, H, W) of order one, t (B,) -> (B, C, H, W)."""
        root = t.sqrt()
        if self.network == "refinenet":
            level = (self.levels * root).long().clamp(max=self.levels - 1)
            # `features` maps its input by 2 y - 1, which is undone for v: images x are in [0, 1], v is about N(0, 1)
            return self.net.features(torch.cat([x, (v + 1) / 2], dim=1), level)
        angles = math.pi * root[:, None] * 2.0 ** torch.arange(FREQUENCIES, device=t.device)
        time = torch.cat([root[:, None], angles.sin(), angles.cos()], dim=1).to(x.dtype)
        return self.net(torch.cat([x.flatten(1), v.flatten(1), time], dim=1)).view(x.shape)
