"""Instance normalisation++ as modules with the released code's parameter names (arXiv:1907.05600, appendix A.1)."""

import torch
from torch import nn

from .. import ops


class ConditionalInstanceNorm2dPlus(nn.Module):
    """Instance normalisation++ whose scales are chosen by the noise level (arXiv:1907.05600, appendix A.1).

    y = gamma (x - mu) / sqrt(var + eps) + gamma alpha (mu - m) / sqrt(v + eps) + beta, mu and var over the pixels of a
    channel, m and v (unbiased) over the channels' mu. `form="paper"` drops the gamma before alpha.

    Args:
        channels: C.
        levels: L, the rows of `embed.weight`, (L, 3C) = [gamma | alpha | beta].
        bias: False leaves beta out, `embed.weight` is then (L, 2C).
        form: "official" (the released code's) or "paper".
    """

    def __init__(self, channels, levels, bias=True, form="official"):
        super().__init__()
        self.channels, self.form = channels, form
        self.embed = nn.Embedding(levels, (3 if bias else 2) * channels)
        nn.init.normal_(self.embed.weight[:, : 2 * channels], 1.0, 0.02)
        nn.init.zeros_(self.embed.weight[:, 2 * channels :])

    def forward(self, x, level, *, elu=False, residual=None):
        """x (B, C, H, W), level (B,) int64 -> y like x, through ELU if asked; with a residual, (y, x + residual)."""
        return ops.instance_norm_plus(x, self.embed.weight, level, form=self.form, elu=elu, residual=residual)


class InstanceNorm2dPlus(nn.Module):
    """Instance normalisation++ with one scale for all noise levels (Song & Ermon 2020, arXiv:2006.09011).

    The equation and arguments are those of `ConditionalInstanceNorm2dPlus`; the parameters are `alpha`, `gamma` and,
    with `bias`, `beta`, each (C,).
    """

    def __init__(self, channels, bias=True, form="official"):
        super().__init__()
        self.channels, self.form = channels, form
        self.alpha = nn.Parameter(torch.empty(channels).normal_(1.0, 0.02))
        self.gamma = nn.Parameter(torch.empty(channels).normal_(1.0, 0.02))
        self.beta = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x, level=None, *, elu=False, residual=None):
        """x (B, C, H, W) -> y like x, through ELU if asked; with a residual, (y, x + residual). `level` is not used."""
        rows = [self.gamma, self.alpha] + ([] if self.beta is None else [self.beta])
        return ops.instance_norm_plus(x, torch.cat(rows)[None], None, form=self.form, elu=elu, residual=residual)
