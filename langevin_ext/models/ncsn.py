"""Noise-conditional score networks: score(x, sigma) ~ grad_x log p_sigma(x), p_sigma the data plus N(0, sigma^2 I)."""

import torch

from ..schedules import check_sigmas, geometric_sigmas
from .refinenet import RefineNet


class ScoreNetwork(RefineNet):
    """What NCSN and NCSNv2 share: shape, sigmas, checks of the input, and `config()`, from which `build` remakes it."""

    default_sigmas = (1.0, 0.01, 10)  # first, last, number
    official_sigmas_key = False

    def __init__(self, shape, ngf, sigmas, conditional):
        name = type(self).__name__
        shape = check_shape(name, shape)
        sigmas = geometric_sigmas(*self.default_sigmas) if sigmas is None else sigmas
        with torch.device("cpu"):  # the module itself may be made on the meta device
            sigmas = check_sigmas(torch.as_tensor(sigmas, dtype=torch.float32), f"{name}: sigmas")
        if isinstance(ngf, bool) or not isinstance(ngf, int) or ngf < 1:
            raise ValueError(f"{name}: ngf must be a positive integer, got {ngf!r}")
        super().__init__(shape[0], ngf, len(sigmas) if conditional else None)
        self.shape, self.ngf = shape, ngf
        self.register_buffer("sigmas", torch.tensor(sigmas), persistent=self.official_sigmas_key)

    def config(self):
        """Everything `langevin_ext.models.build` needs, as plain numbers, strings and lists."""
        return {
            "class": type(self).__name__,
            "shape": list(self.shape),
            "ngf": self.ngf,
            "sigmas": self.sigmas.float().tolist(),
        }

    def check_input(self, x, level):
        """Raises ValueError or TypeError where x is not (B, *shape) or level not int64 (B,) in [0, L)."""
        name = type(self).__name__
        if x.dim() != 4 or x.shape[1:] != self.shape:
            raise ValueError(f"{name}: x must be (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        if not torch.is_tensor(level) or level.dtype != torch.int64:
            got = getattr(level, "dtype", type(level).__name__)
            raise TypeError(f"{name}: level must be an int64 tensor, got {got}")
        if level.shape != x.shape[:1]:
            raise ValueError(f"{name}: level must be ({len(x)},), one for each sample, got {tuple(level.shape)}")


class NCSN(ScoreNetwork):
    """Score network of Song & Ermon 2019 (arXiv:1907.05600): a 4-cascade RefineNet whose norms know the noise level.

    score = net(x, level). The parameters have the names and shapes of the released code's (173 of them). Initial
    weights come from torch's global generator.

    Args:
        shape: (C, H, W) of an image, H and W at least 8, even or odd.
        ngf: base width (released: 128 for colour images, 64 for MNIST).
        sigmas: noise levels (L,), positive, descending, in units of x; default 10, geometric from 1 to 0.01.

    Raises:
        ValueError: shape, ngf or sigmas out of range.
    """

    def __init__(self, shape=(3, 32, 32), ngf=128, sigmas=None):
        super().__init__(shape, ngf, sigmas, conditional=True)

    def forward(self, x, level):
        """The score at noise level sigmas[level].

        Args:
            x: (B, C, H, W) floating, images in [0, 1] plus noise.
            level: (B,) int64 in [0, L).

        Returns:
            (B, C, H, W) like x.

        Raises:
            ValueError, TypeError: x or level of another shape or type.
        """
        self.check_input(x, level)
        return self.features(x, level)


class NCSNv2(ScoreNetwork):
    """Score network of Song & Ermon 2020 (arXiv:2006.09011, technique 3): score = net(x) / sigma, for any sigma.

    The RefineNet of `NCSN` without noise levels in the norms, without norms in the cascades, and with maximum pooling.
    The parameters and the buffer `sigmas` have the names and shapes of the released code's (154 entries).

    Args:
        shape: (C, H, W) of an image, H and W at least 8, even or odd.
        ngf: base width.
        sigmas: noise levels (L,), positive, descending, in units of x; default those of the released CIFAR-10 model,
            232, geometric from 50 to 0.01.

    Raises:
        ValueError: shape, ngf or sigmas out of range.
    """

    default_sigmas = (50.0, 0.01, 232)
    official_sigmas_key = True

    def __init__(self, shape=(3, 32, 32), ngf=128, sigmas=None):
        super().__init__(shape, ngf, sigmas, conditional=False)

    def forward(self, x, level):
        """The score at noise level sigmas[level]; arguments and errors are those of `NCSN.forward`."""
        self.check_input(x, level)
        return self.at_sigma(x, self.sigmas[level])

    def at_sigma(self, x, sigma):
        """The score at any noise level: x (B, C, H, W), sigma a positive number or (B,) -> (B, C, H, W)."""
        if torch.is_tensor(sigma) and sigma.dim():
            sigma = sigma.to(x).view(-1, 1, 1, 1)
        return self.features(x) / sigma


def check_shape(name, shape):
    """(C, H, W) as a tuple of ints, or ValueError."""
    shape = tuple(shape)
    if len(shape) != 3 or not all(isinstance(n, int) for n in shape) or shape[0] < 1 or min(shape[1:]) < 8:
        raise ValueError(f"{name}: shape must be (C, H, W) with H and W at least 8, got {shape}")
    return shape
