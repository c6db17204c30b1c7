"""The digits network that comes with the package."""

import torch

import langevin_ext
from langevin_ext import losses, metrics


def test_held_out_loss_is_that_of_training():
    """The mean weighted loss over all levels on digits that training has not seen; the zero network has D / 2 = 32.

    Training ended at 9.67 (its log, the mean of 100 steps of 64). The loss of one digit at one level has a standard
    deviation of about 3, so 2,970 of them average to within 0.1; what held-out digits cost more is allowed 1.0.
    """
    model = langevin_ext.load("digits")
    x = langevin_ext.data.open_dataset("digits", split="test").images.float() / 255
    with torch.inference_mode():
        means = [
            losses.dsm(model, x, torch.full((len(x),), i), seed=1, step=i).mean().item()
            for i in range(len(model.sigmas))
        ]
    mean = sum(means) / len(means)
    assert abs(mean - 9.67) < 1.1, means
    assert means == sorted(means), "small noise is the harder to see, so the loss must grow towards the last level"


def test_samples_are_nearer_to_held_out_digits_than_a_single_class_is():
    """The Frechet distance of 100 samples with 10 steps a level, against that of 100 training digits of one class.

    Sampling error alone gives 100 training digits of all classes 0.77; a class that is left out or doubled shows.
    """
    test = langevin_ext.data.open_dataset("digits", split="test")
    train = langevin_ext.data.open_dataset("digits")
    held_out = test.images.float() / 255
    x = langevin_ext.sample(langevin_ext.load("digits"), n=100, n_steps_each=10, progress=False).clamp(0, 1)
    ours = metrics.frechet_samples(x, held_out)
    one_class = metrics.frechet_samples(train.images[train.labels == 3][:100].float() / 255, held_out)
    assert ours < 1.0 and one_class > 3.0, (ours, one_class)
