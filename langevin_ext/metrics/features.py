"""Features of a small classifier that comes with the package, for distances of images without an Inception network."""

from pathlib import Path

import torch

from ..models.classifier import Classifier

__all__ = ["ClassifierFeatures"]

SHIPPED = ("digits", "glyphs")


class ClassifierFeatures:
    """Images to the features of a `Classifier` (the values before its last layer), in the place of Inception's pool3.

        frechet_samples(a, b, features=ClassifierFeatures("glyphs"))

    Distances in it are comparable with each other only: not with an Inception distance, nor with those of another
    classifier. Images of another size than the classifier's are brought to it (see `Classifier`); the glyph classifier
    was trained on 32x32 images and on 16x16 ones enlarged in this way. Values outside [0, 1] are clipped, as a PNG
    would, and grey images become colour ones where the classifier wants colour.

    Args:
        name: "digits" or "glyphs", the classifiers that come with the package, or the path of a checkpoint written by
            `langevin_ext.training.train_classifier`.
        device: where to compute, the CPU by default.
        batch_size: images at a time. It changes the features by float32 rounding alone: by 2e-6, features being of
            size 1.

    Attributes:
        name: what a distance prints, e.g. "glyphs classifier".
        model: the `Classifier`, in eval mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the checkpoint is damaged, or no classifier's; batch_size is below 1.
    """

    def __init__(self, name="glyphs", device=None, batch_size=256):
        from ..training.checkpoint import (  # training measures distances too, and imports this package first
            describe,
            load,
        )

        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"ClassifierFeatures: batch_size must be an integer of at least 1, got {batch_size!r}")
        shipped = name in SHIPPED
        if not shipped and not Path(name).is_file():
            raise FileNotFoundError(
                f"ClassifierFeatures: name must be {', '.join(SHIPPED)} or a file, got {str(name)!r}"
            )
        path = f"{name}-classifier" if shipped else Path(name)
        model = load(path, device)
        if not isinstance(model, Classifier):
            raise ValueError(
                f"ClassifierFeatures: name must be a classifier's checkpoint, got a {type(model).__name__}"
            )
        self.model, self.batch_size = model, batch_size
        self.name = f"{name if shipped else Path(name).stem} classifier"
        self.sha256 = describe(path)["sha256"]

    def __call__(self, images) -> torch.Tensor:
        """The features of images.

        Args:
            images: (n, C, H, W), float in [0, 1] or uint8.

        Returns:
            (n, D) float64 on the device of the images.

        Raises:
            TypeError, ValueError: images have another type or shape, or values that are not finite.
        """
        return self._over_batches(images, self.model.features)

    def probabilities(self, images) -> torch.Tensor:
        """The classifier's p(class | image): (n, K) float64 with rows of sum 1; arguments as for a call.

        With them an inception score (Salimans et al. 2016, arXiv:1606.03498, section 4) can be computed offline.
        """
        return self._over_batches(images, lambda x: self.model(x).double().softmax(1))

    @torch.no_grad()
    def _over_batches(self, images, function):
        x = unit(images, "ClassifierFeatures: images")
        device, channels = self.model.linear.weight.device, self.model.shape[0]
        if x.dim() != 4 or x.shape[1] not in (1, channels) or 0 in x.shape:
            expected = f"(n, {channels}, H, W)" if channels == 1 else "(n, 1 or 3, H, W)"
            raise ValueError(f"ClassifierFeatures: images must be {expected}, got {tuple(x.shape)}")
        parts = []
        for batch in x.split(self.batch_size):
            batch = batch.to(device, torch.float32)
            bad = int((~batch.isfinite()).flatten(1).any(1).sum())
            if bad:
                raise ValueError(f"ClassifierFeatures: images must be finite, got {bad} of {len(batch)} that are not")
            batch = batch.clamp(0.0, 1.0).expand(-1, channels, -1, -1)
            parts.append(function(batch).to(x.device, torch.float64))
        return torch.cat(parts)


def unit(images, what) -> torch.Tensor:
    """Images as floats, 8-bit values v as v/255 like a dataset's; `what` names function and argument."""
    images = torch.as_tensor(images)
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise TypeError(f"{what} must be float or uint8, got {images.dtype}")
    return images
