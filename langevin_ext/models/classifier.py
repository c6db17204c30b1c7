"""A small convolutional classifier; its features compare images where no Inception network is at hand."""

import torch
from torch import nn
from torch.nn import functional

from .ncsn import check_shape


class Classifier(nn.Module):
    """Four convolutions, each 3x3 with batch norm and ReLU; the first three are followed by maximum pooling.

        features = mean over the pixels of the last convolution's output       (as pool3 of the Inception network)
        logits   = W features + b

    Images of another size are brought to `shape` by torch's bicubic interpolation (with its antialiasing where they
    shrink) and clipped to [0, 1]. Initial weights come from torch's global generator.

    Args:
        shape: (C, H, W) of an image, C 1 or 3, H and W at least 8.
        classes: number of classes, at least 2.
        width: channels of the first convolution; the next two have 2 and 3 times as many.
        dimension: number of features.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, shape=(1, 32, 32), classes=62, width=24, dimension=64):
        super().__init__()
        self.shape = check_shape("Classifier", shape)
        if self.shape[0] not in (1, 3):
            raise ValueError(f"Classifier: shape must have 1 or 3 channels, got {self.shape}")
        for name, value, low in (("classes", classes, 2), ("width", width, 1), ("dimension", dimension, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"Classifier: {name} must be an integer of at least {low}, got {value!r}")
        self.classes, self.width, self.dimension = classes, width, dimension
        channels = (self.shape[0], width, 2 * width, 3 * width, dimension)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False)
            for fan_in, fan_out in zip(channels[:-1], channels[1:], strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(size) for size in channels[1:])
        self.linear = nn.Linear(dimension, classes)

    def config(self):
        """Everything `langevin_ext.models.build` needs, as plain numbers, strings and lists."""
        return {
            "class": type(self).__name__,
            "shape": list(self.shape),
            "classes": self.classes,
            "width": self.width,
            "dimension": self.dimension,
        }

    def forward(self, x):
        """Logits (B, classes) of images x (B, C, h, w) in [0, 1]."""
        return self.linear(self.features(x))

    def features(self, x):
        """The values before the last layer.

        Args:
            x: (B, C, h, w) floating, in [0, 1].

        Returns:
            (B, dimension), at least 0.

        Raises:
            ValueError: x has another number of dimensions or channels.
        """
        if x.dim() != 4 or x.shape[1] != self.shape[0]:
            raise ValueError(f"Classifier: x must be (B, {self.shape[0]}, h, w), got {tuple(x.shape)}")
        x = resize(x, self.shape[1:])
        last = len(self.norms) - 1
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = functional.relu(norm(convolution(x)))
            x = x if i == last else functional.max_pool2d(x, 2)
        return x.mean((2, 3))


def resize(x, size):
    """Images (B, C, h, w) in [0, 1] at another size (H, W): bicubic, clipped to [0, 1]; as they are if it is theirs."""
    if x.shape[2:] == torch.Size(size):
        return x
    shrinks = x.shape[2] > size[0] or x.shape[3] > size[1]
    x = functional.interpolate(x, tuple(size), mode="bicubic", align_corners=False, antialias=shrinks)
    return x.clamp(0.0, 1.0)
