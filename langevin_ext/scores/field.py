"""What all score fields share, and a plain function as one."""

import torch

from ..schedules import check_sigmas, geometric_sigmas

__all__ = ["Field", "ScoreFunction"]


class Field:
    """What the fields share: the ladder, the shape, and their constants on the device of x."""

    def __init__(self, sigmas, shape):
        name = type(self).__name__
        self.sigmas = torch.as_tensor(geometric_sigmas(1, 0.01, 10) if sigmas is None else sigmas)
        check_sigmas(self.sigmas, f"{name}: argument sigmas")
        self.shape = tuple(int(size) for size in shape)
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"{name}: argument shape must be (C, H, W), got {self.shape}")
        self._constants = {"sigmas": self.sigmas.to(torch.float64)}
        self._copies = {}

    def _on(self, device):
        """The constants on a device, copied to it once."""
        if device not in self._copies:
            self._copies[device] = {key: value.to(device) for key, value in self._constants.items()}
        return self._copies[device]

    def __call__(self, x, level) -> torch.Tensor:
        """score(x, sigmas[level]).

        Args:
            x: (B, C, H, W).
            level: int64 (B,) or one integer.
        """
        return self.at_sigma(x, self._on(x.device)["sigmas"][level])

    def at_sigma(self, x, sigma) -> torch.Tensor:
        """The score at any noise level.

        Args:
            x: (B, C, H, W).
            sigma: one number or (B,), at least 0.

        Returns:
            (B, C, H, W), dtype of x.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"{type(self).__name__}: x must have shape (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}"
            )
        sigma = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).reshape(-1, 1, 1, 1)
        return self._score(x.to(torch.float64), sigma, self._on(x.device)).to(x.dtype)

    def _score(self, x, sigma, constants) -> torch.Tensor:
        """The score of float64 x (B, C, H, W) at sigma (B or 1, 1, 1, 1)."""
        raise NotImplementedError


class ScoreFunction(Field):
    """A plain function as a model: score(x, level) = fn(x, sigmas[level]).

    Args:
        fn: called as fn(x, sigma), x (B, C, H, W), sigma (B, 1, 1, 1) of x's dtype so that it broadcasts; returns the
            score, shaped like x.
        sigmas: (L,) strictly decreasing.
        shape: (C, H, W).
    """

    def __init__(self, fn, sigmas, shape):
        super().__init__(sigmas, shape)
        if not callable(fn):
            raise TypeError(f"ScoreFunction: argument fn must be callable, got {type(fn).__name__}")
        self.fn = fn

    def at_sigma(self, x, sigma) -> torch.Tensor:
        sigma = torch.as_tensor(sigma, device=x.device).to(x.dtype).reshape(-1, 1, 1, 1)
        return self.fn(x, sigma.expand(len(x), 1, 1, 1))
