"""Networks of critically-damped Langevin diffusion: the mixed score, its times, checkpoints, and a short training."""

import pytest
import torch

import langevin_ext
from langevin_ext import models, noise
from langevin_ext.losses.hsm import hsm, times
from langevin_ext.models.cld import CLDNet

SMALL = {"hidden": (16, 16)}
IMAGES = {"shape": (1, 8, 8), "network": "refinenet", "ngf": 4, "levels": 5}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def inputs(model, n=6):
    channels, height, width = model.shape
    u = noise.normal((n, 2 * channels, height, width), 3, stream=noise.DATA)
    return u, torch.linspace(1e-5, 1, n)


@pytest.mark.parametrize("settings", [SMALL, IMAGES])
def test_mixed_score(settings):
    model = CLDNet(**settings, beta=(1.0, 3.0), numerical_eps=1e-9).eval()
    u, t = inputs(model)
    v = u.chunk(2, dim=1)[1]
    seen = []
    model.net.register_forward_hook(lambda module, args, output: seen.append(output))
    if model.network == "refinenet":
        features = model.net.features
        model.net.features = lambda *args: seen.append(features(*args)) or seen[-1]
    score = model(u, t)
    alpha = seen[0].view(v.shape)
    time = t.double().view(-1, 1, 1, 1)
    variance, scale = model.process.covariance(time).vv + 1e-9, model.process.score_scale(time)
    # single precision, of a sum of two terms
    torch.testing.assert_close(score.double(), -v / variance - scale * alpha, rtol=1e-4, atol=1e-4)
    assert score.shape == (6, *model.shape) and score.dtype == torch.float32


@pytest.mark.parametrize("settings", [SMALL, IMAGES])
def test_every_time_has_its_own_network(settings):
    model = CLDNet(**settings).eval()
    u, _ = inputs(model, 1)
    with torch.inference_mode():
        grid = torch.linspace(0.02, 1, 60) ** 2
        v = u.chunk(2, dim=1)[1]
        outputs = torch.stack([model._alpha(u.chunk(2, dim=1)[0], v, t.view(1)) for t in grid])
    distinct = len({tuple(one.flatten().tolist()) for one in outputs})
    assert distinct == (60 if model.network == "mlp" else 5)


def test_level_of_the_refinenet_is_a_step_function_of_the_root_of_time():
    model = CLDNet(**IMAGES)
    seen = []
    model.net.features = lambda x, level: seen.append(level) or torch.zeros(len(x), 1, 8, 8)
    u, _ = inputs(model, 6)
    model(u, torch.tensor([0.0, 0.0399, 0.0401, 0.3599, 0.3601, 1.0]))  # (1/5)^2 = .04, (3/5)^2 = .36
    assert seen[0].tolist() == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("settings", [SMALL | {"shape": (3, 1, 1), "activation": "silu"}, IMAGES])
def test_saves_and_loads(tmp_path, settings):
    model = CLDNet(**settings, beta=(0.1, 6.9), mass=1.0, gamma=0.1, numerical_eps=1e-7).eval()
    langevin_ext.save(tmp_path / "cld.safetensors", model)
    again = langevin_ext.load(tmp_path / "cld.safetensors")
    assert again.config() == model.config() and models.build(model.config()).shape == model.shape
    assert again.process.config() == model.process.config()
    u, t = inputs(model)
    with torch.inference_mode():
        assert torch.equal(again(u, t), model(u, t))


def test_double_precision():
    model = CLDNet(**SMALL).double()
    u, t = inputs(model)
    assert model(u.double(), t.double()).dtype == torch.float64


def four_modes(n, seed, step):
    """Equal parts of N((+-.8, +-.8), .15^2 I) as (n, 2, 1, 1)."""
    signs = (noise.words((n, 2), seed, step=step, stream=noise.DATA) & 1) * 2.0 - 1
    return (0.8 * signs + 0.15 * noise.normal((n, 2), seed, step=step + 2**31, stream=noise.DATA)).view(n, 2, 1, 1)


def test_a_short_training_on_vectors_learns_the_data():
    model = CLDNet(hidden=(64, 64, 64))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    steps = 600
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        loss = hsm(model, four_modes(256, 1, step), times(256, seed=2, step=step), seed=2, step=step).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = langevin_ext.sample(model, "cld-sscs", 2000, n_evals=50, seed=3, progress=False).flatten(1)
    near = (x.abs() - 0.8).square().sum(1).sqrt() < 0.45  # three standard deviations: 98.9 % of the data
    assert near.double().mean() > 0.88  # 0.93 was seen; of the prior 0.2
    shares = torch.bincount((x[:, 0] > 0).long() * 2 + (x[:, 1] > 0).long(), minlength=4) / len(x)
    assert (shares - 0.25).abs().max() < 0.06  # 0.01 is one standard error; the rest is of the training
    assert (x[near].abs() - 0.8).std().item() == pytest.approx(0.15, abs=0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (2, 1)}, "CLDNet: shape must be \\(C, H, W\\), a vector \\(D, 1, 1\\), got \\(2, 1\\)"),
        ({"network": "unet"}, "CLDNet: network must be one of mlp, refinenet, got 'unet'"),
        ({"ngf": 0}, "CLDNet: ngf must be a positive integer, got 0"),
        ({"levels": True}, "CLDNet: levels must be a positive integer, got True"),
        ({"hidden": ()}, "CLDNet: hidden must be one or more positive integers"),
        ({"activation": "sine"}, "CLDNet: activation must be one of"),
        ({"network": "refinenet"}, "CLDNet: shape must have H and W of at least 8 for 'refinenet', got \\(2, 1, 1\\)"),
        ({"beta": 0}, "argument beta must be"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        CLDNet(**settings)


def test_wrong_inputs():
    model = CLDNet(**SMALL)
    with pytest.raises(ValueError, match="CLDNet: u must be \\(B, 4, 1, 1\\), got \\(3, 2, 1, 1\\)"):
        model(torch.zeros(3, 2, 1, 1), torch.ones(3))
    with pytest.raises(
        ValueError, match="CLDNet: t must be float of shape \\(3,\\), one for each sample, got torch.int64"
    ):
        model(torch.zeros(3, 4, 1, 1), torch.ones(3).long())
    with pytest.raises(ValueError, match="got float"):
        model(torch.zeros(3, 4, 1, 1), 0.5)
