"""pytorch-fid's Inception with random weights, for tests that must not fetch the real ones."""

import pytest
import torch


def random_state(seed=0):
    """Weights of the real names and shapes, of a scale that keeps the signal through the 94 layers."""
    pytest.importorskip("pytorch_fid")
    from langevin_ext.metrics import inception

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = inception._pytorch_fid().torchvision.models.inception
        network = parts.Inception3(num_classes=1008, aux_logits=False, init_weights=False)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
    return network.state_dict()
