"""The exponential moving average of a network's weights."""

import torch

__all__ = ["EMA"]


class EMA:
    """Averaged weights, used for sampling (technique 5 of NCSNv2, Song & Ermon 2020, arXiv:2006.09011, section 4.3).

        theta' <- m theta' + (1 - m) theta            after each step; m = min(decay, (1 + n) / (10 + n)) with warm-up

    n counts the updates, this one included. Buffers are copied, not averaged. After n updates without warm-up
    theta' = m^n theta_0 + (1 - m) sum_k m^(n-k) theta_k.

    Args:
        model: torch.nn.Module; its current weights are the start.
        decay: m in [0, 1); .999 forgets over about 1,000 steps.
        warmup: let the average follow the weights closely at first.

    Raises:
        ValueError: decay is outside [0, 1).
    """

    def __init__(self, model, decay=0.999, warmup=False):
        if not 0 <= decay < 1:
            raise ValueError(f"EMA: decay must be in [0, 1), got {decay}")
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model) -> None:
        """One step of the average towards the weights of `model`."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        current = model.state_dict()
        parameters = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        averaged = [name for name in parameters if current[name].is_floating_point()]
        # theta' + (1 - m)(theta - theta'): equal weights stay exactly equal
        torch._foreach_lerp_([self.average[n] for n in averaged], [current[n] for n in averaged], 1 - decay)
        for name in current.keys() - set(averaged):
            self.average[name].copy_(current[name])

    def state_dict(self) -> dict:
        """The averaged parameters and the copied buffers under the model's own names."""
        return dict(self.average)

    @torch.no_grad()
    def load_state_dict(self, state, updates) -> None:
        """Continues from the average `state` after `updates` updates."""
        for name, value in self.average.items():
            value.copy_(state[name])
        self.updates = updates
