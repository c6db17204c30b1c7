"""The released NCSN's eager computation, re-created: one ATen operation for each step of the equations, NCHW.

The baseline of `network.py` and a second oracle of the tests. It is a function of a state dict, so it takes the
weights of our networks. Nothing is fused or left out: each norm takes its means, variances and affine map separately,
each merge starts from zeros and interpolates even to the same size, mean pooling adds four slices. (NCSN: Song & Ermon
2019, arXiv:1907.05600; NCSNv2, recognised by its state dict: arXiv:2006.09011.)
"""

import torch
import torch.nn.functional as F


def official_forward(state, x, level, mean_pool=None):
    """The score of the network whose state dict this is.

    Args:
        state: {name: tensor} of `NCSN` or `NCSNv2` (with `sigmas`).
        x: (B, C, H, W), H and W even unless `mean_pool` can do without.
        level: (B,) int64.
        mean_pool: replaces the mean over 2x2 pixels.

    Returns:
        (B, C, H, W).
    """
    net = Eager(state, level, mean_pool or slices_mean)
    h = net.conv("begin_conv", 2 * x - 1.0)
    layers = []
    for stage, dilation in (("res1", 1), ("res2", 1), ("res3", 2), ("res4", 4)):
        for block in ("0", "1"):
            h = net.residual_block(f"{stage}.{block}", h, dilation)
        layers.append(h)
    h = net.refine("refine1", [layers[3]], 1)
    h = net.refine("refine2", [layers[2], h], 1)
    h = net.refine("refine3", [layers[1], h], 1)
    h = net.refine("refine4", [layers[0], h], 3)
    h = net.conv("end_conv", F.elu(net.norm("normalizer", h)))
    return h if net.conditional else h / state["sigmas"][level].view(-1, 1, 1, 1)


def slices_mean(x):
    """Mean over 2x2 pixels as the sum of the four strided slices."""
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4.0


class Eager:
    """The blocks, each addressed by its prefix in the state dict."""

    def __init__(self, state, level, mean_pool):
        self.state, self.level, self.mean_pool = state, level, mean_pool
        self.conditional = "normalizer.embed.weight" in state

    def conv(self, name, x, dilation=1):
        """Convolution that keeps the size."""
        weight = self.state[f"{name}.weight"]
        padding = dilation if weight.shape[2] == 3 else 0
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), padding=padding, dilation=dilation)

    def norm(self, name, x):
        """Instance normalisation++; the identity where the state dict has no such norm."""
        if f"{name}.embed.weight" in self.state:
            gamma, alpha, beta = F.embedding(self.level, self.state[f"{name}.embed.weight"]).chunk(3, dim=1)
        elif f"{name}.gamma" in self.state:
            gamma, alpha, beta = (self.state[f"{name}.{part}"][None] for part in ("gamma", "alpha", "beta"))
        else:
            return x
        mean = torch.mean(x, dim=(2, 3))
        centre = torch.mean(mean, dim=1, keepdim=True)
        spread = torch.var(mean, dim=1, keepdim=True)
        shift = (mean - centre) / torch.sqrt(spread + 1e-5)
        h = F.instance_norm(x, eps=1e-5)
        h = h + shift[:, :, None, None] * alpha[:, :, None, None]
        return gamma[:, :, None, None] * h + beta[:, :, None, None]

    def residual_block(self, name, x, dilation):
        """Pre-activation residual block, halving where its weights say so."""
        h = self.conv(f"{name}.conv1", F.elu(self.norm(f"{name}.normalize1", x)), dilation)
        h = F.elu(self.norm(f"{name}.normalize2", h))
        if f"{name}.conv2.conv.weight" in self.state:
            h = self.mean_pool(self.conv(f"{name}.conv2.conv", h))
            return self.mean_pool(self.conv(f"{name}.shortcut.conv", x)) + h
        h = self.conv(f"{name}.conv2", h, dilation)
        shortcut = self.conv(f"{name}.shortcut", x, dilation) if f"{name}.shortcut.weight" in self.state else x
        return shortcut + h

    def conv_units(self, name, x, count):
        """Residual convolution units."""
        for i in range(1, count + 1):
            h = x
            for j in (1, 2):
                h = self.conv(f"{name}.{i}_{j}_conv", F.elu(self.norm(f"{name}.{i}_{j}_norm", h)))
            x = h + x
        return x

    def merge(self, name, xs):
        """Multi-resolution fusion at the size of the first input."""
        size, total = xs[0].shape[2:], None
        for i, x in enumerate(xs):
            h = self.conv(f"{name}.convs.{i}", self.norm(f"{name}.norms.{i}", x))
            h = F.interpolate(h, size=size, mode="bilinear", align_corners=True)
            total = (torch.zeros_like(h) if total is None else total) + h  # zeros made where and as h lies
        return total

    def pooling(self, name, x):
        """Chained residual pooling."""
        pool = F.avg_pool2d if self.conditional else F.max_pool2d
        x = F.elu(x)
        path = x
        for i in (0, 1):
            path = pool(self.norm(f"{name}.norms.{i}", path), 5, stride=1, padding=2)
            path = self.conv(f"{name}.convs.{i}", path)
            x = path + x
        return x

    def refine(self, name, xs, count):
        """One cascade."""
        hs = [self.conv_units(f"{name}.adapt_convs.{i}", x, 2) for i, x in enumerate(xs)]
        h = self.merge(f"{name}.msf", hs) if len(hs) > 1 else hs[0]
        return self.conv_units(f"{name}.output_convs", self.pooling(f"{name}.crp", h), count)
