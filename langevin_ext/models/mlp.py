"""Fully connected score networks for vectors."""

import math

import torch
from torch import nn

from ..schedules import check_sigmas
from .ncsn import ScoreNetwork

__all__ = ["MLP", "layers"]

ACTIVATIONS = {"softplus": nn.Softplus, "elu": nn.ELU, "silu": nn.SiLU, "relu": nn.ReLU}


def layers(inputs, hidden, outputs, activation="softplus", name="layers") -> nn.Sequential:
    """Linear layers of widths inputs, *hidden, outputs, with an activation after each but the last.

    Args:
        inputs, outputs: positive integers.
        hidden: at least one positive integer.
        activation: "softplus", "elu", "silu" or "relu".
        name: what the error message calls the function.

    Returns:
        torch.nn.Sequential; initial weights come from torch's global generator.

    Raises:
        ValueError: a width is no positive integer, there is no hidden layer, or the activation is unknown.
    """
    widths = [inputs, *hidden, outputs]
    if len(widths) < 3 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in widths):
        raise ValueError(f"{name}: hidden must be one or more positive integers, got {tuple(hidden)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"{name}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    modules: list[nn.Module] = []
    for n, m in zip(widths[:-1], widths[1:], strict=True):
        modules += [nn.Linear(n, m), ACTIVATIONS[activation]()]
    return nn.Sequential(*modules[:-1])


class MLP(nn.Module):
    """Fully connected score network, as in Figure 2 of NCSN (Song & Ermon 2019, arXiv:1907.05600: 2-128-128-2).

        s(x, level) = net(x) / sigma                                        one noise level
        s(x, level) = net(x / sqrt(1 + sigma^2); e[level]) / sigma          more, for data of variance about one

    e[level], an embedding learned for each level, is added to the first hidden layer before its activation. There is
    no `at_sigma`: between its levels the network knows nothing. Initial weights come from torch's global generator.

    Args:
        shape: (C, H, W) of a sample, flattened; a vector is (D, 1, 1).
        hidden: widths of the hidden layers.
        activation: "softplus", "elu", "silu" or "relu"; the first three are smooth, which sliced score matching needs.
        sigmas: noise levels (L,), positive, descending, in units of x; default one level of 1.

    Raises:
        ValueError: shape, hidden, activation or sigmas out of range.
    """

    def __init__(self, shape=(2, 1, 1), hidden=(128, 128), activation="softplus", sigmas=None):
        super().__init__()
        shape = tuple(shape)
        if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
            raise ValueError(f"MLP: shape must be (C, H, W), a vector (D, 1, 1), got {shape}")
        with torch.device("cpu"):  # the module itself may be made on the meta device
            levels = torch.as_tensor([1.0] if sigmas is None else sigmas, dtype=torch.float32)
            values = check_sigmas(levels, "MLP: sigmas")
        size = math.prod(shape)
        self.shape, self.hidden, self.activation = shape, tuple(hidden), activation
        self.net = layers(size, self.hidden, size, activation, "MLP")
        self.embed = nn.Embedding(len(values), self.hidden[0]) if len(values) > 1 else None
        self.register_buffer("sigmas", torch.tensor(values), persistent=False)

    def config(self):
        """Everything `langevin_ext.models.build` needs, as plain numbers, strings and lists."""
        return {
            "class": "MLP",
            "shape": list(self.shape),
            "hidden": list(self.hidden),
            "activation": self.activation,
            "sigmas": self.sigmas.float().tolist(),
        }

    check_input = ScoreNetwork.check_input

    def forward(self, x, level):
        """The score at noise level sigmas[level].

        Args:
            x: (B, C, H, W) floating.
            level: (B,) int64 in [0, L).

        Returns:
            (B, C, H, W) like x.

        Raises:
            ValueError, TypeError: x or level of another shape or type.
        """
        self.check_input(x, level)
        sigma = self.sigmas[level].to(x.dtype)[:, None]
        if self.embed is None:
            score = self.net(x.flatten(1)) / sigma
        else:
            first, *others = self.net
            h = first(x.flatten(1) / (1 + sigma**2).sqrt()) + self.embed(level)
            for module in others:
                h = module(h)
            score = h / sigma
        return score.view(x.shape)
