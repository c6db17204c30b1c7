"""The RefineNet of NCSN and NCSNv2 as an engine runs it: `models.refinenet` block by block, on buffers of an arena.

The blocks have the structure of the modules of the same names. A buffer has one owner: a block that is given one may
write its result there, except `Residual` with a shortcut, whose input the cascades read again.
"""

import torch
import torch.nn.functional as F

from .. import _native
from ..models.norm import ConditionalInstanceNorm2dPlus
from .convolutions import Direct, activations, convolution, pooled_convolution


class Norm:
    """Instance normalisation++ with an ELU behind it, into a buffer of the arena; without a module only the ELU."""

    def __init__(self, module):
        self.weight, self.conditional = None, isinstance(module, ConditionalInstanceNorm2dPlus)
        if module is not None:
            self.paper = module.form == "paper"
            rows = [module.gamma, module.alpha, module.beta] if not self.conditional else []
            weight = module.embed.weight if self.conditional else torch.cat([r for r in rows if r is not None])[None]
            self.weight = weight.detach().float().clone(memory_format=torch.contiguous_format)

    def __call__(self, x, arena, level, *, elu=True):
        """A new buffer; x stays."""
        y = arena.take(x.shape)
        if self.weight is None:
            return torch.ops.aten.elu.out(x, out=y)
        core, (samples, channels) = _native.core(x.device), x.shape[:2]
        statistics = samples * (2 * channels + 2)
        # One piece of scratch memory: the statistics, then the partial sums they are made of.
        scratch = arena.scratch(statistics + core.instance_norm_plus_scratch(x, False))
        level = level if self.conditional else None
        core.instance_norm_plus(
            x,
            None,
            None,
            y,
            self.weight,
            level,
            scratch[:statistics],
            scratch[statistics:],
            self.paper,
            1e-5,
            elu,
            arena.threads,
        )
        return y


class Residual:
    """`ResidualBlock`; with a shortcut x stays, without one the result is written over it."""

    def __init__(self, block, precision, size):
        self.norm1, self.norm2 = Norm(block.normalize1), Norm(block.normalize2)
        self.conv1 = convolution(block.conv1, precision, size)
        form = pooled_convolution if hasattr(block.conv2, "conv") else convolution
        self.conv2 = form(block.conv2, precision, size)
        self.shortcut = form(block.shortcut, precision, size) if block.reshape else None

    def __call__(self, x, arena, level):
        a = self.norm1(x, arena, level)
        b = self.conv1(a, arena)
        arena.give(a)
        a = self.norm2(b, arena, level)
        arena.give(b)
        y = self.conv2(a, arena, add=x if self.shortcut is None else self.shortcut(x, arena))
        arena.give(a)
        return y


class Units:
    """`ResidualConvUnit`; the result is written over x."""

    def __init__(self, module, precision, size):
        names = [f"{i}_{j}" for i in range(1, module.n_blocks + 1) for j in (1, 2)]
        norms = [Norm(getattr(module, f"{name}_norm", None)) for name in names]
        convs = [convolution(getattr(module, f"{name}_conv"), precision, size) for name in names]
        self.pairs = list(zip(norms[::2], convs[::2], norms[1::2], convs[1::2], strict=True))

    def __call__(self, x, arena, level):
        for norm1, conv1, norm2, conv2 in self.pairs:
            a = norm1(x, arena, level)
            b = conv1(a, arena)
            arena.give(a)
            a = norm2(b, arena, level)
            arena.give(b)
            x = conv2(a, arena, add=x)
            arena.give(a)
        return x


class Pooling:
    """`ChainedPooling`; the result is written over x."""

    def __init__(self, module, precision, size):
        self.average = module.norms is not None
        self.norms = [Norm(norm) for norm in module.norms] if self.average else []
        self.convs = [convolution(conv, precision, size) for conv in module.convs]

    def __call__(self, x, arena, level):
        x = F.elu_(x)
        first = self.stage(0, x, arena, level)
        last = self.stage(1, first, arena, level)
        x.add_(first).add_(last)
        arena.give(first, last)
        return x

    def stage(self, i, x, arena, level):
        """conv(pool(norm(x))); x stays."""
        if not self.average:
            return self.convs[i](F.max_pool2d(x, 5, stride=1, padding=2), arena)
        a, b = self.norms[i](x, arena, level, elu=False), arena.take(x.shape)
        torch.ops.aten.avg_pool2d.out(a, [5, 5], [1, 1], [2, 2], out=b)
        arena.give(a)
        y = self.convs[i](b, arena)
        arena.give(b)
        return y


class Fusion:
    """`MultiResolutionFusion`; its inputs are given back."""

    def __init__(self, module, precision, sizes):
        self.norms = [None] * len(sizes) if module.norms is None else [Norm(norm) for norm in module.norms]
        self.convs = [convolution(conv, precision, size) for conv, size in zip(module.convs, sizes, strict=True)]

    def __call__(self, xs, arena, level):
        total = None
        for x, norm, conv in zip(xs, self.norms, self.convs, strict=True):
            a = x if norm is None else norm(x, arena, level, elu=False)
            fits = total is None or x.shape[2:] == total.shape[2:]
            y = conv(a, arena, add=total if fits else None)
            if not fits:
                total.add_(F.interpolate(y, size=total.shape[2:], mode="bilinear", align_corners=True))
                arena.give(y)
            else:
                total = y
            arena.give(*([x] if norm is None else [x, a]))
        return total


class Cascade:
    """`RefineBlock`, of inputs of sizes (B, H, W), finest first."""

    def __init__(self, module, precision, sizes):
        self.adapts = [Units(unit, precision, size) for unit, size in zip(module.adapt_convs, sizes, strict=True)]
        self.fusion = None if module.msf is None else Fusion(module.msf, precision, sizes)
        self.pooling = Pooling(module.crp, precision, sizes[0])
        self.units = Units(module.output_convs, precision, sizes[0])

    def __call__(self, xs, arena, level):
        xs = [adapt(x, arena, level) for adapt, x in zip(self.adapts, xs, strict=True)]
        x = xs[0] if self.fusion is None else self.fusion(xs, arena, level)
        return self.units(self.pooling(x, arena, level), arena, level)


class Network:
    """`RefineNet.features` on buffers.

    Args:
        model: the module.
        precision: "fp32", "int16" or "bf16", between the first convolution and the last, which are float32.
        batch: about how many images come at a time.
    """

    def __init__(self, model, precision, batch):
        size = (batch, *model.shape[1:])
        low = (batch, *(-(-n // 2) for n in size[1:]))
        begin, end = model.begin_conv, model.end_conv
        self.dtype = activations(precision)
        self.begin = Direct(begin.weight.float(), begin.bias.float(), 1, 1, 1, size)
        self.end = Direct(end.weight.float(), end.bias.float(), 1, 1, 1, size)
        self.normalizer = Norm(model.normalizer)
        stages = ((model.res1, size, size), (model.res2, size, low), (model.res3, low, low), (model.res4, low, low))
        self.stages = [
            [Residual(block, precision, before if i == 0 else after) for i, block in enumerate(blocks)]
            for blocks, before, after in stages
        ]
        self.cascades = [
            Cascade(model.refine1, precision, [low]),
            Cascade(model.refine2, precision, [low, low]),
            Cascade(model.refine3, precision, [low, low]),
            Cascade(model.refine4, precision, [size, low]),
        ]

    def __call__(self, x, arena, level):
        """x (B, C, H, W) float32 in [0, 1] -> the network's output, float32, contiguous."""
        h = self.begin((2 * x - 1).contiguous(memory_format=torch.channels_last), arena).to(self.dtype)
        layers = []
        for blocks in self.stages:
            for block in blocks:
                h = block(h, arena, level)
            layers.append(h)
        h = self.cascades[0]([layers[3]], arena, level)
        for cascade, layer in zip(self.cascades[1:], reversed(layers[:3]), strict=True):
            h = cascade([layer, h], arena, level)
        a = self.normalizer(h, arena, level)
        arena.give(h)
        y = self.end(a.float(), arena).contiguous()
        arena.give(a)
        return y
