"""The measurements of a diagnosis, level by level."""

from dataclasses import dataclass

import torch
from tqdm import tqdm

from ..samplers.inputs import device_of, evaluation_mode
from ..sampling import plan, sample
from ..schedules import step_sizes
from .estimate import Estimate, difference, estimate
from .expected import Expected, discretisation
from .measure import Path, losses, walk
from .result import Level

__all__ = ["Job"]


@dataclass(frozen=True, eq=False)
class Job:
    """What is measured, and how.

    Attributes:
        model, exact: the scores; exact may be None.
        sigmas: levels of the model.
        sets: images of the training data and, if there are some, of the held-out data.
        expected: what the moments of the data predict.
        eps, init, n_steps_each: of the sampler.
        seed: of all noise.
        n, chains: most images and chains of a set.
        start_steps: steps of the chains from data.
        draws: noise draws per image and level.
    """

    model: object
    exact: object
    sigmas: list[float]
    sets: list[torch.Tensor]
    expected: Expected
    eps: float
    init: str
    seed: int
    n: int
    chains: int
    n_steps_each: int
    start_steps: int
    draws: int

    @property
    def counts(self) -> list[int]:
        """Images and chains of the smaller set."""
        return [min(most, *map(len, self.sets)) for most in (self.n, self.chains)]

    def run(self, places, progress) -> tuple[list[Level], Estimate | None]:
        """The levels looked at, and the gap between the losses on average over them."""
        found, totals = [], [torch.zeros(min(self.n, len(images)), dtype=torch.float64) for images in self.sets]
        device = device_of([self.model])
        sets = [images.to(device) for images in self.sets]
        with torch.inference_mode(), evaluation_mode([self.model]):
            with tqdm(total=len(places) + 1, desc="diagnose", unit="level", disable=not progress) as bar:
                path, reached = self.path()
                bar.update()
                for index in places:
                    found.append(self.level(index, sets, path, reached[index], totals))
                    bar.update()
        mean = [estimate(total / len(places)) for total in totals]
        return found, difference(mean[1], mean[0]) if len(mean) > 1 else None

    def path(self) -> tuple[Path, list[float]]:
        """The sampler's own chain, and E|x - m|^2 / D that it reaches on Gaussian data after each level."""
        path = Path(self.model, self.exact, self.expected.centre, self.n_steps_each)
        run = {"eps": self.eps, "init": self.init, "n_steps_each": self.n_steps_each, "seed": self.seed}
        stages = plan(self.model, "annealed", self.chains, denoise=False, **run).stages
        reached = self.expected.norms_of_sampler(stages, self.init)
        try:
            sample(self.model, "annealed", self.chains, denoise=False, callback=path, progress=False, **run)
        except FloatingPointError:
            pass  # the levels that it did not reach count as diverged
        return path, reached

    def level(self, index, sets, path, reached, totals) -> Level:
        """Everything that is measured at one level; the second of `sets`, if there is one, is the held-out data.

        The losses of each image are added to `totals`.
        """
        sigma, expected = self.sigmas[index], self.expected
        alpha = step_sizes(self.sigmas, self.eps)[index].item()
        trials, of_sets, first = [], [], 0
        # held-out images and chains are numbered after the training data's: their noise is their own
        for images, total in zip(sets, totals, strict=True):
            at = {"seed": self.seed, "first": first, "centre": expected.centre}
            of_sets.append(losses(self.model, self.exact, images[: self.n], index, sigma, draws=self.draws, **at))
            run = {"alpha": alpha, "n_steps": self.start_steps}
            trials.append(walk(self.model, images[: self.chains], index, sigma, **run, **at))
            total += of_sets[-1].values
            first += len(images)
        loss, *held_out_loss = [estimate(one.values) for one in of_sets]
        fresh = len(sets) > 1
        return Level(
            index=index,
            sigma=sigma,
            loss=loss,
            held_out_loss=held_out_loss[0] if fresh else None,
            gap=difference(held_out_loss[0], loss) if fresh else None,
            zero_loss=expected.centre.numel() / 2,
            gaussian_loss=expected.gaussian_loss(sigma),
            exact_loss=of_sets[-1].exact,
            scale=of_sets[0].scale,
            held_out_scale=of_sets[1].scale if fresh else None,
            drift=trials[0].drift,
            held_out_drift=trials[1].drift if fresh else None,
            drift_allowed=discretisation(alpha, sigma),
            moved=trials[0].moved,
            held_out_moved=trials[1].moved if fresh else None,
            norm=path.norm(index),
            norm_level=expected.norm(sigma),
            norm_sampler=reached,
            error=of_sets[-1].error,
            path_error=path.error(index),
        )
