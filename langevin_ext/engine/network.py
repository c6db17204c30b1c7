"""The RefineNet of NCSN and NCSNv2 as an engine runs it: `models.refinenet` block by block, on buffers of an arena.

The blocks have the structure of the modules of the same names, and hand on `Sum`s: a convolution adds the other branch
and its bias itself where it can (`adds`), else the norm behind it does: `later` is the bias, (C,) float32, that whoever
reads a convolution's result has to add, or None. Which convolutions there are is said by `forms`, an object with
`dtype`, that of the activations between the first and the last convolution, and

    convolution(conv, size)    of an nn.Conv2d that keeps the size, for inputs of size (B, H, W)
    pooled(module, size)       of a `ConvMeanPool`
    outer(conv, size)          of the first and the last, whose inputs and outputs are float32

and which is told in `norms`, a set, the (C, H, W) of what the norms normalise.

A buffer has one owner: a block that is given one may write its result there, except `Residual` with a shortcut, whose
input the cascades read again.
"""

import torch
import torch.nn.functional as F

from .. import _native
from ..models.norm import ConditionalInstanceNorm2dPlus
from ..ops import norm_forms


class Sum:
    """x + residual + bias, (B, C, H, W), added by the first who reads it, into x; the buffers belong to it until then.

    The bias, (C,) float32, and the residual may be None.
    """

    def __init__(self, x, residual=None, bias=None):
        self.x, self.residual, self.bias = x, residual, bias

    def value(self, arena):
        """The sum."""
        if self.residual is not None:
            self.x.add_(self.residual)
        if self.bias is not None:
            self.x.add_(self.bias[:, None, None])
        self.added(arena)
        return self.x

    def added(self, arena):
        """Says that x is the sum now."""
        if self.residual is not None:
            arena.give(self.residual)
        self.residual = self.bias = None


def plus(conv, a, arena, h) -> Sum:
    """conv(a) + h, a `Sum` with conv's `later` in its bias; h's buffers belong to the result."""
    if conv.adds:
        return Sum(conv(a, arena, add=h.value(arena)))
    if h.residual is not None:
        h.value(arena)
    return Sum(conv(a, arena), h.x, h.bias)


def together(convs):
    """The sum of what the convolutions leave to be added later, or None."""
    later = [conv.later for conv in convs if conv.later is not None]
    return torch.stack(later).sum(0) if later else None


class Norm:
    """Instance normalisation++ and an ELU, or the mean over 5x5 pixels, behind it, into a buffer of the arena.

    Without a module only the ELU.
    """

    def __init__(self, module, forms, size):
        self.weight, self.conditional = None, isinstance(module, ConditionalInstanceNorm2dPlus)
        if module is not None:
            self.paper = module.form == "paper"
            rows = [module.gamma, module.alpha, module.beta] if not self.conditional else []
            weight = module.embed.weight if self.conditional else torch.cat([r for r in rows if r is not None])[None]
            self.weight = weight.detach().float().clone(memory_format=torch.contiguous_format)
            forms.norms.add((module.channels, *size[1:]))

    def __call__(self, h, arena, level, *, elu=True, pool=False):
        """A new buffer, of h or a buffer; two buffers that h adds up are their sum in h.x afterwards, else h stays."""
        h = h if isinstance(h, Sum) else Sum(h)
        x, y = h.x, arena.take(h.x.shape)
        if self.weight is None:
            return torch.ops.aten.elu.out(h.value(arena), out=y)
        core, (samples, channels) = _native.core(x.device), x.shape[:2]
        statistics, blocks = samples * (2 * channels + 2), norm_forms.chosen(x, h.residual is not None, pool)
        # One piece of scratch memory: the statistics and, aligned, the partial sums they are made of.
        begin = -(-statistics // 64) * 64
        scratch = arena.scratch(begin + (0 if blocks else core.instance_norm_plus_scratch(x, False)))
        images = x, h.residual, None if h.residual is None else x, y
        table = self.weight, level if self.conditional else None, scratch[:statistics]
        options = self.paper, 1e-5, elu and not pool
        norm_forms.launch(core, blocks, images, table, scratch[begin:], options, arena.threads, bias=h.bias, pool=pool)
        if h.residual is not None:
            h.added(arena)
        return y


class Residual:
    """`ResidualBlock`; with a shortcut x stays, without one the result is written over it where convolutions add."""

    def __init__(self, block, forms, size):
        self.norm1, self.norm2 = (Norm(norm, forms, size) for norm in (block.normalize1, block.normalize2))
        self.conv1 = forms.convolution(block.conv1, size)
        form = forms.pooled if hasattr(block.conv2, "conv") else forms.convolution
        self.conv2 = form(block.conv2, size)
        self.shortcut = form(block.shortcut, size) if block.reshape else None
        self.bias = together([self.conv2] if self.shortcut is None else [self.conv2, self.shortcut])

    def __call__(self, h, arena, level):
        a = self.norm1(h, arena, level)
        b = self.conv1(a, arena)
        arena.give(a)
        a = self.norm2(Sum(b, bias=self.conv1.later), arena, level)
        arena.give(b)
        x = h.value(arena)
        y = plus(self.conv2, a, arena, Sum(x if self.shortcut is None else self.shortcut(x, arena), bias=self.bias))
        arena.give(a)
        return y


class Units:
    """`ResidualConvUnit`; the result is written over its input where convolutions add."""

    def __init__(self, module, forms, size):
        names = [f"{i}_{j}" for i in range(1, module.n_blocks + 1) for j in (1, 2)]
        norms = [Norm(getattr(module, f"{name}_norm", None), forms, size) for name in names]
        convs = [forms.convolution(getattr(module, f"{name}_conv"), size) for name in names]
        self.pairs = list(zip(norms[::2], convs[::2], norms[1::2], convs[1::2], strict=True))

    def __call__(self, h, arena, level):
        for norm1, conv1, norm2, conv2 in self.pairs:
            a = norm1(h, arena, level)
            b = conv1(a, arena)
            arena.give(a)
            a = norm2(Sum(b, bias=conv1.later), arena, level)
            arena.give(b)
            h = plus(conv2, a, arena, Sum(h.value(arena), bias=conv2.later))
            arena.give(a)
        return h


class Pooling:
    """`ChainedPooling`; where convolutions add, the result is written over its input."""

    def __init__(self, module, forms, size):
        self.norms = None if module.norms is None else [Norm(norm, forms, size) for norm in module.norms]
        self.convs = [forms.convolution(conv, size) for conv in module.convs]
        self.bias = together(self.convs if self.norms else self.convs[1:])

    def __call__(self, h, arena, level):
        x, (conv1, conv2) = F.elu_(h.value(arena)), self.convs
        a = self.pooled(0, Sum(x), arena, level)
        first = conv1(a, arena)
        self.give(a, arena)
        a = self.pooled(1, Sum(first, bias=conv1.later), arena, level)
        x.add_(first)
        arena.give(first)
        y = plus(conv2, a, arena, Sum(x, bias=self.bias))
        self.give(a, arena)
        return y

    def pooled(self, i, h, arena, level):
        """The mean of norm(h), which leaves h's bias for later; without norms the largest of h, which adds it."""
        if self.norms is None:
            return F.max_pool2d(h.value(arena), 5, stride=1, padding=2)
        return self.norms[i](h, arena, level, pool=True)

    def give(self, a, arena):
        """Gives what is pooled back, if the arena has it from a norm."""
        if self.norms is not None:
            arena.give(a)


class Fusion:
    """`MultiResolutionFusion`; its inputs are given back."""

    def __init__(self, module, forms, sizes):
        norms = [None] * len(sizes) if module.norms is None else module.norms
        self.norms = [norm and Norm(norm, forms, size) for norm, size in zip(norms, sizes, strict=True)]
        self.convs = [forms.convolution(conv, size) for conv, size in zip(module.convs, sizes, strict=True)]
        self.bias = together(self.convs)  # to be added at any time: interpolation keeps a constant

    def __call__(self, hs, arena, level):
        total = None
        for h, norm, conv in zip(hs, self.norms, self.convs, strict=True):
            a = h.value(arena) if norm is None else norm(h, arena, level, elu=False)
            if total is None:
                total = Sum(conv(a, arena), bias=self.bias)
            elif h.x.shape[2:] == total.x.shape[2:]:
                total = plus(conv, a, arena, total)
            else:
                y = conv(a, arena)
                wide = F.interpolate(y, total.x.shape[2:], mode="bilinear", align_corners=True)
                total = Sum(total.x if total.residual is None else total.value(arena), wide, total.bias)
                arena.give(y)
            arena.give(*([a] if norm is None else [h.x, a]))
        return total


class Cascade:
    """`RefineBlock`, of inputs of sizes (B, H, W), finest first."""

    def __init__(self, module, forms, sizes):
        self.adapts = [Units(unit, forms, size) for unit, size in zip(module.adapt_convs, sizes, strict=True)]
        self.fusion = None if module.msf is None else Fusion(module.msf, forms, sizes)
        self.pooling = Pooling(module.crp, forms, sizes[0])
        self.units = Units(module.output_convs, forms, sizes[0])

    def __call__(self, hs, arena, level):
        hs = [adapt(h, arena, level) for adapt, h in zip(self.adapts, hs, strict=True)]
        h = hs[0] if self.fusion is None else self.fusion(hs, arena, level)
        return self.units(self.pooling(h, arena, level), arena, level)


class Network:
    """`RefineNet.features` on buffers.

    Args:
        model: the module.
        forms: of the convolutions.
        batch: about how many images come at a time.
    """

    def __init__(self, model, forms, batch):
        size = (batch, *model.shape[1:])
        low = (batch, *(-(-n // 2) for n in size[1:]))
        self.dtype = forms.dtype
        self.begin, self.end = forms.outer(model.begin_conv, size), forms.outer(model.end_conv, size)
        self.normalizer = Norm(model.normalizer, forms, size)
        stages = ((model.res1, size, size), (model.res2, size, low), (model.res3, low, low), (model.res4, low, low))
        self.stages = [
            [Residual(block, forms, before if i == 0 else after) for i, block in enumerate(blocks)]
            for blocks, before, after in stages
        ]
        self.cascades = [
            Cascade(model.refine1, forms, [low]),
            Cascade(model.refine2, forms, [low, low]),
            Cascade(model.refine3, forms, [low, low]),
            Cascade(model.refine4, forms, [size, low]),
        ]

    def __call__(self, x, arena, level):
        """x (B, C, H, W) float32 in [0, 1] -> the network's output, float32, contiguous."""
        h = Sum(self.begin((2 * x - 1).contiguous(memory_format=torch.channels_last), arena).to(self.dtype))
        layers = []
        for blocks in self.stages:
            for block in blocks:
                h = block(h, arena, level)
            layers.append(h)
        h = self.cascades[0]([layers[3]], arena, level)
        for cascade, layer in zip(self.cascades[1:], reversed(layers[:3]), strict=True):
            h = cascade([layer, h], arena, level)
        a = self.normalizer(h, arena, level)
        arena.give(h.x)
        y = self.end(a.float(), arena).contiguous()
        arena.give(a)
        return y
