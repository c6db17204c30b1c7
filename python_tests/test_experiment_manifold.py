"""Digits on a manifold (NCSN, arXiv:1907.05600, Figure 1): principal components and the curves of the loss."""

import pytest
import torch

from langevin_ext.data import open_dataset
from langevin_ext.experiments import manifold
from langevin_ext.experiments._sliced import train_sliced


def curve(training, held_out=(0.0,)):
    return manifold.Curve(0.1, torch.as_tensor(training, dtype=torch.float64), [1], list(held_out))


def test_components_of_known_data():
    """Two directions hold all of five pixels; the second moves no pixel by more than .004."""
    place = torch.linspace(-1, 1, 101, dtype=torch.float64)
    first, second = torch.tensor([0.6, 0.0, 0.8, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    rows = 0.5 + place[:, None] * first + 0.008 * (place.square()[:, None] - 0.5) * second
    found = manifold.components(rows)
    assert (found.rank, found.enough, found.explaining(0.95), found.explaining(1.0 - 1e-9)) == (2, 1, 1, 2)
    assert abs(float(found.directions[0] @ first.double())) == pytest.approx(1.0, abs=1e-6)
    assert float((found.reconstruct(rows, 1) - rows).abs().max()) <= 0.008
    assert torch.allclose(found.reconstruct(rows, 2), rows.double(), atol=1e-12)


def test_digits_lie_in_a_subspace():
    """sklearn's digits have three pixels without ink; the two numbers are of these images and hold without a seed."""
    rows = open_dataset("digits", split="all").images.flatten(1).float() / 255
    found = manifold.components(rows)
    assert int((rows.std(0) == 0).sum()) == 3 and found.rank == 61
    assert found.enough == 53
    error = [(found.reconstruct(rows, k) - rows).abs().amax(1).mean() for k in (52, 53)]
    assert error[1] <= 0.01 < error[0]
    assert [found.explaining(share) for share in (0.9, 0.95, 0.99)] == [21, 29, 41]


def test_what_a_curve_says():
    # quarters of means -1, -2, -3 and -4 with a slope: the last grew by a third and is its line
    steps = torch.arange(400, dtype=torch.float64)
    straight = curve(-(steps + 0.5) / 100 - 0.5)
    assert straight.growth == pytest.approx(4 / 3 - 1) and straight.fluctuation == pytest.approx(0.0, abs=1e-12)
    alternating = curve(torch.where(steps % 2 == 0, -1.0, -3.0))
    assert alternating.growth == pytest.approx(0.0) and alternating.fluctuation == pytest.approx(1.0, rel=0.01)
    assert curve(-torch.ones(400), [-0.3, -0.25]).generalisation == pytest.approx(0.25)


def test_without_noise_the_loss_has_no_bound_and_with_noise_it_has():
    """Data on a line in the plane push the network towards -k x_2 for ever; noise .5 bounds the loss by -D/(2 .25)."""
    place = torch.linspace(-1, 1, 64)
    line = torch.stack([place, 0 * place], dim=1).view(64, 2, 1, 1)

    def noised(deviation):
        def batch(step):
            return line + deviation * manifold.noise.normal(line.shape, 0, step=step)

        return train_sliced(batch, (2, 1, 1), 150, lr=2e-2)[1]

    bare, noisy = noised(0.0), noised(0.5)
    assert sum(bare[-20:]) / 20 < -15 and sum(noisy[-20:]) / 20 > -4


def test_training_is_a_function_of_the_seed():
    def train(seed):
        return train_sliced(lambda step: torch.full((4, 2, 1, 1), 0.1 * step), (2, 1, 1), 3, seed=seed)[1]

    state = torch.random.get_rng_state()
    assert train(1) == train(1) != train(2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_experiment(tmp_path):
    report = manifold.run(tmp_path, size=0.1, progress=False)
    assert [one.what for one in report.findings if not one.reproduced] == []
    assert [path.name for path in report.figures] == ["manifold-pca.png", "manifold-losses.png"]
    assert all(path.stat().st_size > 20_000 for path in report.figures)
