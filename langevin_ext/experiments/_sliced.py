"""Training by sliced score matching on data alone, as the toy experiments of NCSN do it (appendix B.1)."""

import torch

from .. import losses
from ..models import MLP

__all__ = ["train_sliced", "zero_level"]


def zero_level(x) -> torch.Tensor:
    """The index of the only noise level, for each sample."""
    return torch.zeros(len(x), dtype=torch.int64)


def train_sliced(batch, shape, steps, *, lr=1e-3, seed=0, watch=None, progress=None) -> tuple[MLP, list[float]]:
    """A score network with two hidden layers of 128 softplus units, trained by Adam on `losses.ssm_vr`.

        loss = E v' Ds(x) v + 1/2 |s(x)|^2,    v ~ N(0, I)          (Song et al. 2019, arXiv:1905.07088, eq. 9)

    NCSN (arXiv:1907.05600, appendix B.1) uses this network, learning rate 0.001 and batches of 128 for Figure 2.

    Args:
        batch: the data of a step, a function of its number that returns (B, C, H, W).
        shape: (C, H, W).
        steps: training steps.
        lr: learning rate.
        seed: of the initial weights and of the directions v.
        watch: called as watch(step, model) after each step.
        progress: a tqdm bar to advance by one each step.

    Returns:
        The model and the loss of each step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # initial weights; all other randomness is counted, not drawn
        model = MLP(shape, hidden=(128, 128), activation="softplus", sigmas=[1.0])
    optimiser = torch.optim.Adam(model.parameters(), lr)
    history = []
    for step in range(steps):
        x = batch(step)
        loss = losses.ssm_vr(model, x, zero_level(x), seed=seed, step=step, anneal_power=0.0, noisy=False).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(float(loss.detach()))
        if watch is not None:
            watch(step, model)
        if progress is not None:
            progress.update()
    return model, history
