"""Training of the upsampling network on pairs of an image and the same image at half its size."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from ..models.fsrcnn import FSRCNN, bicubic, luma
from .loop import run
from .trainer import Settings, TensorData, Trainer

__all__ = ["UpsamplerSettings", "UpsamplerTrainer", "psnr", "train_upsampler"]

LOW = {
    "average": lambda x: functional.avg_pool2d(x, 2),
    "bicubic": lambda x: functional.interpolate(x, scale_factor=0.5, mode="bicubic", antialias=True),
}
GLANCE = 256  # held-out images behind each line of the log
CHUNK = 64
SMALLEST = 1e-12  # mean squared error of 120 dB, so that equal images do not give an infinite value


def train_upsampler(
    data,
    *,
    out,
    steps,
    held_out=None,
    model=None,
    low="average",
    batch_size=64,
    lr=1e-3,
    ema=0.999,
    seed=0,
    flip=False,
    device=None,
    save_every=1000,
    log_every=100,
    progress=True,
    tensorboard=True,
    resume="auto",
    callback=None,
) -> torch.nn.Module:
    """Trains an `FSRCNN` (Dong, Loy & Tang 2016, arXiv:1608.00367) to undo a halving of the image size.

        Adam(lr, beta .9 .999, eps 1e-8) on mean_i |net(luma(low(x_i))) - luma(x_i)|^2 / pixels

    Luma is Y of RGB images and the only channel of gray ones. Unlike the paper, one learning rate holds for all layers,
    whole images are taken and the weights are averaged. A run can be stopped and continued like one of `train`, whose
    folder, messages and exactness it shares.

    Args:
        data: a dataset of `langevin_ext.data`, or a float tensor (N, C, H, W) in [0, 1], C 1 or 3, H and W even.
        out: folder of the run; see `train`.
        steps: total number of steps, those of the earlier calls included.
        held_out: images, dataset or tensor, on which the result is compared with bicubic interpolation; by default the
            "test" part of `data`, which must then be its "train" part.
        model: the `FSRCNN` to train in place; by default a new one with d=56, s=12, m=4.
        low: how an image is halved: "average" over 2x2 pixels, as the low-resolution data of this package are made,
            or "bicubic" with antialiasing, as in the paper.
        batch_size: images in a step.
        lr: learning rate.
        ema: decay of the average of the weights, with warm-up (see `EMA`); None trains without average.
        seed: integer in [0, 2^64).
        flip: mirror at random.
        device: where to train, by default where the model is.
        save_every, log_every, progress, tensorboard, resume, callback: see `train`. Lines of the log also have psnr and
            psnr_bicubic, of the first 256 held-out images.

    Returns:
        A copy of the network with the averaged weights, in eval mode. It is also written to model.safetensors, with
        psnr, psnr_bicubic and the number of all held-out images in the metadata.

    Raises:
        TypeError, ValueError: an argument is out of range, or data and held_out do not fit each other; also as `train`.
        FloatingPointError, KeyboardInterrupt: as `train`.

    Initial weights depend on the seed, unless a model is given; order and mirroring on (seed, step, place in a batch).
    """
    settings = UpsamplerSettings(
        batch_size=batch_size, lr=lr, ema=ema, ema_warmup=True, seed=seed, flip=flip, dequantise=False, low=low
    )
    if model is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = FSRCNN()
    elif not isinstance(model, FSRCNN):
        raise TypeError(f"train_upsampler: model must be an FSRCNN, got {type(model).__name__}")
    if held_out is None:
        held_out = _test_part(data)
    return run(
        UpsamplerTrainer(model.to(device), data, held_out, settings),
        out=out,
        steps=steps,
        save_every=save_every,
        log_every=log_every,
        progress=progress,
        tensorboard=tensorboard,
        resume=resume,
        callback=callback,
    )


def _test_part(data):
    which = getattr(data, "which", None)
    if which != "train":
        got = type(data).__name__ if which is None else repr(data)
        raise ValueError(f"train_upsampler: held_out must be given where data is not a train part, got {got}")
    return data.split("test")


@dataclass(frozen=True)
class UpsamplerSettings(Settings):
    """`Settings` with the way in which an image is halved."""

    low: str = "average"

    def __post_init__(self):
        super().__post_init__()
        if self.low not in LOW:
            raise ValueError(f"train_upsampler: low must be one of {', '.join(LOW)}, got {self.low!r}")


class UpsamplerTrainer(Trainer):
    """A run in memory, as `Trainer`, of an upsampling network.

    Args:
        model: `FSRCNN`, trained in place.
        data, held_out: datasets or float tensors of equal image shape.
        settings: `UpsamplerSettings`.

    Raises:
        TypeError, ValueError: the images cannot be halved, or are not gray or RGB.
    """

    def __init__(self, model, data, held_out, settings):
        self.held_out = TensorData(held_out) if torch.is_tensor(held_out) else held_out
        super().__init__(model, data, settings)
        self.settings["held_out"] = self.held_out.fingerprint
        for name in ("anneal_power", "dequantise", "objective", "noisy"):  # not used here
            del self.settings[name]

    def check(self) -> int:
        """The number of different losses, 1, once the data are known to be of use."""
        channels, height, width = self.data.shape
        if channels not in (1, 3) or height % 2 or width % 2:
            raise ValueError(
                "train_upsampler: data must have 1 or 3 channels and even height and width,"
                f" got {tuple(self.data.shape)}"
            )
        if tuple(self.held_out.shape) != tuple(self.data.shape):
            raise ValueError(
                f"train_upsampler: held_out must have the data's shape {tuple(self.data.shape)},"
                f" got {tuple(self.held_out.shape)}"
            )
        return 1

    def labels(self) -> torch.Tensor:
        """The same for all samples (B,)."""
        return torch.zeros(self._settings.batch_size, dtype=torch.int64, device=self.device)

    def bins(self, label) -> torch.Tensor:
        """The only row of the log's table (B,)."""
        return label

    def loss(self, x, label, first=0) -> torch.Tensor:
        """Mean squared error (B,) of the enlarged luma."""
        return _error(self.model.enlarge(luma(LOW[self._settings.low](x))), luma(x))

    def measures(self, *, final=False) -> dict:
        """Peak signal-to-noise ratios on held-out images, of the averaged network and of bicubic interpolation."""
        count = len(self.held_out) if final else min(len(self.held_out), GLANCE)
        model = self.averaged()
        values = {"psnr": model.enlarge, "psnr_bicubic": bicubic}
        measured = {
            name: psnr(enlarge, self.held_out, count=count, low=self._settings.low, device=self.device)
            for name, enlarge in values.items()
        }
        return measured | {"held_out_images": count} if final else measured


@torch.no_grad()
def psnr(enlarge, images, *, count=None, low="average", device=None) -> float:
    """Peak signal-to-noise ratio of enlarged luma in dB: -10 log10 of the mean squared error, values clipped to [0, 1].

    Args:
        enlarge: luma (B, 1, H/2, W/2) -> (B, 1, H, W).
        images: dataset of N images (C, H, W), as for `train_upsampler`.
        count: take the first images only.
        low: see `train_upsampler`.
        device: where to compute, the CPU by default.

    Returns:
        The value, at most 120; the error is averaged over all images before the logarithm.
    """
    count = len(images) if count is None else count
    total = 0.0
    for start in range(0, count, CHUNK):
        indices = torch.arange(start, min(start + CHUNK, count))
        x = images.batch(indices, seed=0, step=0, dequantise=False).to(device)
        total += _error(enlarge(luma(LOW[low](x))).clamp(0.0, 1.0), luma(x)).double().sum().item()
    return -10 * math.log10(max(total / count, SMALLEST))


def _error(y, target):
    """Mean squared error of each image (B,)."""
    return (y - target).square().mean(dim=(1, 2, 3))
