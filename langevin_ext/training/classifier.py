"""Training of the small classifier whose features compare images offline."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn import functional
from tqdm import tqdm

from .. import __version__
from ..data import indices_for
from ..models.classifier import Classifier, resize
from .checkpoint import save
from .trainer import integer

__all__ = ["train_classifier"]

WARMUP = 0.1  # of the steps
ROWS = 500  # images at a time where the accuracy is measured


@dataclass(frozen=True)
class Settings:
    """The settings of a run; see `train_classifier`."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    smoothing: float
    coarse: float
    seed: int

    def __post_init__(self):
        for name, low, bits in (("epochs", 1, 32), ("batch_size", 2, 32), ("seed", 0, 64)):
            object.__setattr__(self, name, integer(name, getattr(self, name), low, bits, "train_classifier"))
        for name, high in (("lr", math.inf), ("weight_decay", math.inf), ("smoothing", 1.0), ("coarse", 1.0)):
            value = getattr(self, name)
            allowed = 0 <= value <= 1 if name == "coarse" else 0 <= value < high and (name != "lr" or value > 0)
            if not allowed:
                raise ValueError(f"train_classifier: {name} must be in {RANGES[name]}, got {value}")


RANGES = {"lr": "(0, inf)", "weight_decay": "[0, inf)", "smoothing": "[0, 1)", "coarse": "[0, 1]"}


def train_classifier(
    data,
    *,
    out,
    test=None,
    epochs=15,
    batch_size=128,
    lr=2e-3,
    weight_decay=1e-2,
    smoothing=0.05,
    coarse=0.0,
    seed=0,
    width=24,
    dimension=64,
    device=None,
    metadata=None,
    progress=True,
) -> Classifier:
    """Trains a `Classifier` by cross-entropy and writes it, in float16, with its accuracy on the test images.

        AdamW(lr(t), beta .9 .999), lr rising linearly over the first tenth of the steps and then falling as a cosine

    Args:
        data: `ImageDataset` with labels 0 to K - 1.
        out: file to write, `NAME.safetensors`; must be new.
        test: `ImageDataset` with labels, on which the accuracy is measured; by default the "test" part of the data.
        epochs, batch_size: passes over the data; images in a step.
        lr, weight_decay: largest learning rate; AdamW's decay.
        smoothing: label smoothing (Szegedy et al. 2016, arXiv:1512.00567, section 7), in [0, 1).
        coarse: share in [0, 1] of each batch that is shown at half resolution: averaged over 2x2 pixels and brought
            back to its size as the classifier brings all images to its own. It prepares the classifier for images of
            half its size.
        seed: integer in [0, 2^64).
        width, dimension: of the `Classifier`.
        device: the CPU by default.
        metadata: dictionary that JSON can hold, stored in the file beside settings and accuracies.
        progress: show a bar.

    Returns:
        The network in eval mode on the CPU, its weights rounded to float16 as they are in the file.

    Raises:
        TypeError, ValueError: an argument is out of range, or the images have no labels.
        FileExistsError: `out` exists.
        FloatingPointError: the loss is not finite.

    Initial weights depend on the seed, the order of the images on (seed, step), their dequantisation on (seed, step,
    place in the batch): the same call with the same number of threads on the same CPU writes the same weights.
    """
    settings, out = Settings(epochs, batch_size, lr, weight_decay, smoothing, coarse, seed), Path(out)
    if out.exists():
        raise FileExistsError(f"train_classifier: out must be a new file, got {out}, which exists")
    classes = _classes(data, "data")
    test = data.split("test") if test is None else test
    if _classes(test, "test") > classes or test.shape != data.shape:
        raise ValueError(
            f"train_classifier: test must be images {data.shape} of {classes} classes, got {test.shape} with labels up"
            f" to {int(test.labels.max())}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = Classifier(data.shape, classes, width, dimension)
    model = model.to(device).train()
    _fit(model, data, settings, progress)
    facts = _facts(model.cpu().eval(), data, test, settings)
    save(out, model, metadata={**facts, **(metadata or {})}, dtype=torch.float16)
    return model


def _classes(data, name):
    if getattr(data, "labels", None) is None:
        raise ValueError(f"train_classifier: {name} must be an ImageDataset with labels, got {data!r:.80}")
    return int(data.labels.max()) + 1


def _fit(model, data, settings, progress):
    """The steps of the training."""
    s, device = settings, next(model.parameters()).device
    steps = math.ceil(s.epochs * len(data) / s.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), s.lr, weight_decay=s.weight_decay)
    with tqdm(total=steps, disable=not progress, unit="step", desc="train_classifier", dynamic_ncols=True) as bar:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = s.lr * _schedule(step, steps)
            indices = indices_for(step, s.batch_size, len(data), s.seed)
            x = data.batch(indices, seed=s.seed, step=step).to(device)
            x = _coarsen(x, round(s.coarse * len(x)))
            loss = functional.cross_entropy(model(x), data.labels[indices].to(device), label_smoothing=s.smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            value = loss.item()
            if not math.isfinite(value):
                raise FloatingPointError(f"train_classifier: loss is not finite at step {step}; try a smaller lr")
            bar.set_postfix_str(f"loss {value:.4g}", refresh=False)
            bar.update()


def _schedule(step, steps):
    """Share of the largest learning rate, in (0, 1]."""
    rise = max(1, round(WARMUP * steps))
    return min((step + 1) / rise, 0.5 * (1 + math.cos(math.pi * max(0, step - rise) / max(1, steps - rise))))


def _coarsen(x, n):
    """The first n images at half resolution; the order of the data is random, and so is which images these are."""
    if not n:
        return x
    return torch.cat([resize(functional.avg_pool2d(x[:n], 2), x.shape[2:]), x[n:]])


@torch.no_grad()
def _facts(model, data, test, settings) -> dict:
    """Rounds the weights as the file will, then measures the accuracies."""
    for parameter in model.parameters():
        parameter.copy_(parameter.half())
    facts = {"kind": "classifier", "settings": asdict(settings), "data": data.fingerprint, "data_name": data.name}
    facts |= {"train_images": len(data), "test_images": len(test)}
    facts["accuracy"] = {"train": _accuracy(model, data), "test": _accuracy(model, test)}
    if settings.coarse:
        facts["accuracy"]["test at half resolution"] = _accuracy(model, test, coarse=True)
    return facts | {"langevin_ext": __version__, "torch": torch.__version__}


def _accuracy(model, data, coarse=False):
    """Share of the images whose label has the largest logit."""
    right = 0
    for start in range(0, len(data), ROWS):
        x = data.images[start : start + ROWS].float() / 255
        x = _coarsen(x, len(x)) if coarse else x
        right += int((model(x).argmax(1) == data.labels[start : start + ROWS]).sum())
    return right / len(data)
