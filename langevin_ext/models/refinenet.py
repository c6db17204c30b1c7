"""The 4-cascade RefineNet of NCSN and NCSNv2 (Lin et al. 2017, arXiv:1611.06612; Song & Ermon 2019, arXiv:1907.05600).

Parameter names, shapes and their order are those of the released networks, so their checkpoints load as they are.
Norms are followed by ELU and preceded by residual additions; both are done inside the norm's own pass. A block
therefore hands on a `Sum`, which the next norm adds up. Activations and weights are channels-last in memory.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .._transforms import transformed
from ..ops.conv3x3 import conv3x3, is_winograd
from .norm import ConditionalInstanceNorm2dPlus, InstanceNorm2dPlus


class Sum:
    """The tensor x + residual, (B, C, H, W), added once by its first reader; x belongs to this object alone."""

    def __init__(self, x, residual=None):
        self.x, self.residual = x, residual

    def value(self):
        """The sum; written over x where no gradient needs x."""
        if self.residual is not None:
            self.x = self.x + self.residual if torch.is_grad_enabled() else self.x.add_(self.residual)
            self.residual = None
        return self.x

    def normalised(self, norm, level, *, elu=True):
        """elu(norm(sum)); norm None is the identity."""
        if norm is None:
            return F.elu(self.value()) if elu else self.value()
        if self.residual is None:
            return norm(self.x, level, elu=elu)
        y, self.x = norm(self.x, level, elu=elu, residual=self.residual)
        self.residual = None
        return y


class Conv3x3(nn.Conv2d):
    """3x3 convolution that keeps the size, `ops.conv3x3`.

    Attributes:
        winograd: False, of one or of the class, leaves it to `F.conv2d` wherever it is.
    """

    winograd = True

    def __init__(self, inputs, outputs, dilation=1, bias=True):
        super().__init__(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=bias)

    def is_winograd(self, x):
        """Whether x (B, inputs, H, W) is convolved by F(4x4, 3x3)."""
        return self.winograd and is_winograd(x, self.weight, self.bias, self.dilation[0])

    def forward(self, x):
        """x (B, inputs, H, W) -> (B, outputs, H, W)."""
        return conv3x3(x, self.weight, self.bias, self.dilation[0]) if self.winograd else super().forward(x)


class ConvMeanPool(nn.Module):
    """Convolution, then the mean of 2x2 pixels; an odd last row or column is averaged over the pixels it has."""

    def __init__(self, inputs, outputs, kernel):
        super().__init__()
        self.conv = Conv3x3(inputs, outputs) if kernel == 3 else nn.Conv2d(inputs, outputs, kernel)

    def forward(self, x):
        """x (B, inputs, H, W) -> (B, outputs, ceil(H/2), ceil(W/2))."""
        weight, bias = self.conv.weight, self.conv.bias
        if self.conv.padding == (0, 0):  # a 1x1 convolution commutes with the mean
            return F.conv2d(F.avg_pool2d(x, 2, ceil_mode=True), weight, bias)
        if x.shape[2] % 2 or x.shape[3] % 2 or self.conv.is_winograd(x):
            return F.avg_pool2d(self.conv(x), 2, ceil_mode=True)
        # The mean of the four convolutions is one with stride 2, whose kernel is the mean of the four shifted ones.
        return F.conv2d(x, F.avg_pool2d(F.pad(weight, (1, 1, 1, 1)), 2, stride=1), bias, stride=2, padding=1)


class ResidualBlock(nn.Module):
    """shortcut(x) + conv2(elu(norm2(conv1(elu(norm1(x)))))), pre-activation residual block.

    `pool` halves the image; a `dilation` widens the convolutions instead; `norm(channels)` makes a norm.
    """

    def __init__(self, inputs, outputs, norm, *, dilation=1, pool=False, reshape=False):
        super().__init__()
        self.conv1 = Conv3x3(inputs, inputs, dilation)
        self.normalize2 = norm(inputs)
        self.conv2 = ConvMeanPool(inputs, outputs, 3) if pool else Conv3x3(inputs, outputs, dilation)
        if reshape:
            self.shortcut = ConvMeanPool(inputs, outputs, 1) if pool else Conv3x3(inputs, outputs, dilation)
        self.normalize1 = norm(inputs)
        self.reshape = reshape

    def forward(self, h, level):
        """h: Sum -> Sum."""
        y = self.conv1(h.normalised(self.normalize1, level))
        y = self.conv2(Sum(y).normalised(self.normalize2, level))
        return Sum(y, self.shortcut(h.value()) if self.reshape else h.value())


class ResidualConvUnit(nn.Module):
    """`n_blocks` times x + conv(elu(norm(conv(elu(norm(x)))))), the RCU of arXiv:1611.06612; the norms are optional."""

    def __init__(self, channels, n_blocks, norm):
        super().__init__()
        self.n_blocks = n_blocks
        for name in (f"{i}_{j}" for i in range(1, n_blocks + 1) for j in (1, 2)):
            if norm is not None:
                self.add_module(f"{name}_norm", norm(channels))
            self.add_module(f"{name}_conv", Conv3x3(channels, channels, bias=False))

    def forward(self, h, level):
        """h: Sum -> Sum."""
        for i in range(1, self.n_blocks + 1):
            y = h
            for j in (1, 2):
                norm = getattr(self, f"{i}_{j}_norm", None)
                y = Sum(getattr(self, f"{i}_{j}_conv")(y.normalised(norm, level)))
            h = Sum(y.x, h.value())
        return h


class ChainedPooling(nn.Module):
    """p_0 = elu(x); p_i = conv(pool5x5(norm(p_{i-1}))); the sum of all p: the CRP of arXiv:1611.06612, two stages.

    Average pooling with norms (NCSN), maximum pooling without (NCSNv2).
    """

    def __init__(self, channels, norm):
        super().__init__()
        self.convs = nn.ModuleList(Conv3x3(channels, channels, bias=False) for _ in range(2))
        self.norms = None if norm is None else nn.ModuleList(norm(channels) for _ in range(2))

    def forward(self, h, level):
        """h: Sum -> Sum."""
        pool = F.max_pool2d if self.norms is None else F.avg_pool2d
        path = F.elu(h.value(), inplace=not torch.is_grad_enabled())
        total = Sum(path)
        for i, conv in enumerate(self.convs):
            path = Sum(path).normalised(self.norms and self.norms[i], level, elu=False)
            path = conv(pool(path, 5, stride=1, padding=2))
            total = Sum(total.value(), path)
        return total


class MultiResolutionFusion(nn.Module):
    """Sum over inputs of resize(conv(norm(x_i))), bilinear to the size of the first: the fusion of arXiv:1611.06612."""

    def __init__(self, inputs, outputs, norm):
        super().__init__()
        self.convs = nn.ModuleList(Conv3x3(c, outputs) for c in inputs)
        self.norms = None if norm is None else nn.ModuleList(norm(c) for c in inputs)

    def forward(self, hs, level):
        """hs: list of Sum -> Sum."""
        total = None
        for i, (conv, h) in enumerate(zip(self.convs, hs, strict=True)):
            y = conv(h.normalised(self.norms and self.norms[i], level, elu=False))
            if total is not None and y.shape[2:] != total.x.shape[2:]:
                y = F.interpolate(y, size=total.x.shape[2:], mode="bilinear", align_corners=True)
            total = Sum(y) if total is None else Sum(total.value(), y)
        return total


class RefineBlock(nn.Module):
    """RCU of each input, fusion of them, chained pooling, RCU: one cascade of arXiv:1611.06612, figure 3."""

    def __init__(self, inputs, outputs, norm, last=False):
        super().__init__()
        self.adapt_convs = nn.ModuleList(ResidualConvUnit(c, 2, norm) for c in inputs)
        self.output_convs = ResidualConvUnit(outputs, 3 if last else 1, norm)
        self.msf = MultiResolutionFusion(inputs, outputs, norm) if len(inputs) > 1 else None
        self.crp = ChainedPooling(outputs, norm)

    def forward(self, hs, level):
        """hs: list of Sum, finest first -> Sum."""
        hs = [adapt(h, level) for adapt, h in zip(self.adapt_convs, hs, strict=True)]
        h = hs[0] if self.msf is None else self.msf(hs, level)
        return self.output_convs(self.crp(h, level), level)


class RefineNet(nn.Module):
    """Four residual stages (channels ngf, 2, 2, 2 ngf; one halving, then dilations 2 and 4) and four cascades back.

    Args:
        channels: of the image.
        ngf: base width, any positive number.
        levels: number of noise levels of the conditional norms (NCSN); None: norms without a level, and none in the
            cascades (NCSNv2).
    """

    def __init__(self, channels, ngf, levels=None):
        super().__init__()
        norm = InstanceNorm2dPlus if levels is None else lambda c: ConditionalInstanceNorm2dPlus(c, levels)
        refine_norm = None if levels is None else norm
        wide = 2 * ngf
        self.begin_conv = Conv3x3(channels, ngf)
        self.normalizer = norm(ngf)
        self.end_conv = Conv3x3(ngf, channels)
        self.res1 = nn.ModuleList([ResidualBlock(ngf, ngf, norm), ResidualBlock(ngf, ngf, norm)])
        self.res2 = nn.ModuleList(
            [ResidualBlock(ngf, wide, norm, pool=True, reshape=True), ResidualBlock(wide, wide, norm)]
        )
        for name, dilation in (("res3", 2), ("res4", 4)):
            blocks = [ResidualBlock(wide, wide, norm, dilation=dilation, reshape=first) for first in (True, False)]
            self.add_module(name, nn.ModuleList(blocks))
        self.refine1 = RefineBlock([wide], wide, refine_norm)
        self.refine2 = RefineBlock([wide, wide], wide, refine_norm)
        self.refine3 = RefineBlock([wide, wide], ngf, refine_norm)
        self.refine4 = RefineBlock([ngf, ngf], ngf, refine_norm, last=True)
        self.to(memory_format=torch.channels_last)

    def features(self, x, level=None):
        """Image x in [0, 1], (B, C, H, W), any H and W, and level (B,) int64 -> the network's output (B, C, H, W)."""
        x = 2 * x - 1
        x = x if transformed() else x.contiguous(memory_format=torch.channels_last)  # which vmap does not know
        h = Sum(self.begin_conv(x))
        layers = []
        for stage in (self.res1, self.res2, self.res3, self.res4):
            for block in stage:
                h = block(h, level)
            layers.append(h)
        h = self.refine1([layers[3]], level)
        for refine, layer in ((self.refine2, layers[2]), (self.refine3, layers[1]), (self.refine4, layers[0])):
            h = refine([layer, h], level)
        return self.end_conv(h.normalised(self.normalizer, level)).contiguous()
