"""Where the samples of a run start: noise, zeros, a tensor, or data."""

import warnings

import numpy as np
import torch

from .. import noise

NAMES = ("uniform", "normal", "zeros", "data")


class DataStart:
    """Starts drawn from data, with replacement: sample i starts at image floor(N u), u of (seed, first + i).

    Args:
        data: a dataset of `langevin_ext.data`, or a float tensor (N, C, H, W).
        shape: (C, H, W) of the model that runs first.

    Attributes:
        fingerprint: that of the data.
    """

    def __init__(self, data, shape):
        from ..training.trainer import TensorData  # `training` imports this package for checkpoint selection

        data = torch.as_tensor(data) if isinstance(data, np.ndarray) else data
        if torch.is_tensor(data) and (data.dim() != 4 or not data.is_floating_point() or not len(data)):
            got = f"{data.dtype} {tuple(data.shape)}"
            raise ValueError(f"sample: argument data must be float images (N, C, H, W), got {got}")
        self._data = TensorData(data) if torch.is_tensor(data) else data
        if not hasattr(self._data, "batch") or tuple(self._data.shape) != tuple(shape):
            got = tuple(getattr(self._data, "shape", ())) or type(data).__name__
            raise ValueError(f"sample: argument data must be images of shape {tuple(shape)}, got {got}")
        self.fingerprint = self._data.fingerprint

    def batch(self, count, seed, first) -> torch.Tensor:
        """The starts of samples first .. first + count - 1: (count, C, H, W) on the CPU."""
        words = noise.words((count,), seed, step=1, first=first, stream=noise.INIT)
        indices = (words * len(self._data)) >> 32
        return self._data.batch(indices, seed=seed, step=0, first=first, flip=False, dequantise=False)


def start_of(init, data, n, shape, models) -> str | torch.Tensor | DataStart:
    """What `start` takes, of the arguments init and data of `sample`.

    Raises:
        ValueError, TypeError: they do not fit the run.
    """
    if data is not None and not (isinstance(init, str) and init == "data"):
        raise ValueError(f"sample: argument data is the start of init='data', got init={init!r}; give both")
    init = torch.as_tensor(init) if isinstance(init, np.ndarray) else init
    if torch.is_tensor(init):
        if tuple(init.shape) != (n, *shape):
            raise ValueError(f"sample: argument init must have shape {(n, *shape)}, got {tuple(init.shape)}")
        if not torch.isfinite(init).all():
            raise ValueError("sample: argument init must be finite")
        return init
    if not isinstance(init, str) or init not in NAMES:
        got = repr(init) if isinstance(init, str) else type(init).__name__
        raise ValueError(f"sample: argument init must be one of {', '.join(map(repr, NAMES))} or a tensor, got {got}")
    if init != "data":
        return init
    if data is None:
        raise ValueError("sample: init='data' needs the argument data, images to start from")
    return _fresh(DataStart(data, shape), models)


def _fresh(start, models) -> DataStart:
    """Warns if the starts are the images that a model was trained on.

    A score learned from a sample is off near its points in a way that the loss on fresh data does not show, and
    Langevin dynamics started there stays where it is off (arXiv:2603.11319).
    """
    if any(getattr(model, "data_fingerprint", None) == start.fingerprint for model in models):
        warnings.warn(
            "sample: the chains start at the images that the model was trained on, where its score is least to be "
            "trusted; start from fresh ones, such as the data's split('test')",
            stacklevel=5,
        )
    return start


def start(init, low, high, shape, *, seed, first, device, dtype) -> torch.Tensor:
    """The first state of samples low .. high-1: uniform on (0, 1), standard normal, zeros, or their part of a tensor
    or of data."""
    if torch.is_tensor(init):
        return init[low:high].detach().to(device, dtype, copy=True).contiguous()
    if isinstance(init, DataStart):
        return init.batch(high - low, seed, first + low).to(device, dtype, copy=True).contiguous()
    if init == "zeros":
        return torch.zeros(high - low, *shape, device=device, dtype=dtype)
    draw = noise.uniform if init == "uniform" else noise.normal
    return draw((high - low, *shape), seed, first=first + low, stream=noise.INIT, device=device).to(dtype)
