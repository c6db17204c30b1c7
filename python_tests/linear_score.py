"""A network small enough to know everything about, s(x, level) = -(a[level] x + b[level]) / sigma[level], and a run."""

import torch

from langevin_ext import data, noise
from langevin_ext.training import train


class LinearScore(torch.nn.Module):
    def __init__(self, shape=(1, 4, 4), sigmas=(1.0, 0.3, 0.1)):
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("sigmas", torch.tensor(sigmas), persistent=False)
        self.a = torch.nn.Parameter(torch.zeros(len(sigmas)))
        self.b = torch.nn.Parameter(torch.zeros(len(sigmas)))
        self.register_buffer("samples_seen", torch.zeros((), dtype=torch.int64))

    def config(self):
        return {"class": "LinearScore", "shape": self.shape, "sigmas": self.sigmas.tolist()}

    def forward(self, x, level):
        if self.training:
            self.samples_seen += len(x)
        a, b, sigma = (values[level][:, None, None, None] for values in (self.a, self.b, self.sigmas))
        return -(a * x + b) / sigma

    def expected_loss(self, mean, variance):
        """Its DSM loss per level (p = 2) for independent pixels of N(mean, variance), in closed form."""
        a, b, sigma = self.a.detach().double(), self.b.detach().double(), self.sigmas.double()
        pixels = torch.Size(self.shape).numel()
        return 0.5 * pixels * (a**2 * variance + (1 - a * sigma) ** 2 + (a * mean + b) ** 2)

    def best_loss(self, variance):
        """The smallest possible DSM loss per level: D/2 v / (v + sigma^2)."""
        pixels, sigma = torch.Size(self.shape).numel(), self.sigmas.double()
        return 0.5 * pixels * variance / (variance + sigma**2)


def build(config):
    assert config["class"] == "LinearScore"
    return LinearScore(config["shape"], config["sigmas"])


QUIET = {"progress": False, "tensorboard": False}
IMAGES = (noise.uniform((40, 1, 4, 4), 1) * 255).to(torch.uint8)


def digits():
    return data.ImageDataset(IMAGES)


def small(out, steps, model=None, **options):
    options = {"batch_size": 16, "lr": 0.01, "save_every": 7, "log_every": 5, "flip": True, **QUIET, **options}
    return train(LinearScore() if model is None else model, digits(), out=out, steps=steps, **options)
