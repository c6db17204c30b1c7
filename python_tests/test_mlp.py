"""The fully connected score network: its equation, its files, and what it refuses."""

import pytest
import torch
from torch.nn.functional import elu, relu, silu, softplus

from langevin_ext import load, models
from langevin_ext.models import MLP
from langevin_ext.models.mlp import layers
from langevin_ext.training import save

FUNCTIONS = {"softplus": softplus, "elu": elu, "silu": silu, "relu": relu}


def seeded(*arguments):
    torch.manual_seed(0)
    return MLP(*arguments)


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_one_level(activation):
    # net(x) / sigma, the network of two hidden layers written out
    model, x = seeded((3, 1, 2), (5, 4), activation, [0.5]), torch.rand(7, 3, 1, 2)
    one, two, three = (model.net[i] for i in (0, 2, 4))
    function = FUNCTIONS[activation]
    expected = three(function(two(function(one(x.view(7, 6)))))) / 0.5
    score = model(x, torch.zeros(7, dtype=torch.int64))
    torch.testing.assert_close(score, expected.view(7, 3, 1, 2))
    assert model.embed is None and len(model.net) == 5


def test_several_levels():
    model, x = seeded((2, 1, 1), (5,), "elu", [4.0, 0.5]), torch.rand(3, 2, 1, 1)
    level = torch.tensor([0, 1, 0])
    sigma = torch.tensor([4.0, 0.5, 4.0])[:, None]
    hidden = elu(model.net[0](x.view(3, 2) / (1 + sigma**2).sqrt()) + model.embed.weight[level])
    torch.testing.assert_close(model(x, level).view(3, 2), model.net[2](hidden) / sigma)
    assert model.embed.weight.shape == (2, 5)
    doubled = model.double()(x.double(), level)
    assert doubled.dtype == torch.float64
    torch.testing.assert_close(doubled.float(), model.float()(x, level))


def test_figure_2_network_has_128_hidden_units_twice():
    model = MLP()
    assert [tuple(p.shape) for p in model.parameters()] == [(128, 2), (128,), (128, 128), (128,), (2, 128), (2,)]
    assert model.sigmas.tolist() == [1.0] and model.activation == "softplus"


def test_initial_weights_come_from_torchs_generator():
    one, two = seeded((2, 1, 1), (4,), "silu", [1.0, 0.1]), seeded((2, 1, 1), (4,), "silu", [1.0, 0.1])
    other = MLP((2, 1, 1), (4,), "silu", [1.0, 0.1])
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]) and not torch.equal(value, other.state_dict()[name])
    with torch.device("meta"):
        assert MLP((2, 1, 1), (4,), "silu", [1.0, 0.1]).sigmas.is_meta


@pytest.mark.parametrize("sigmas", [None, [1.0, 0.3, 0.1]])
def test_files(tmp_path, sigmas):
    model = seeded((2, 3, 1), (6, 5), "silu", sigmas)
    save(tmp_path / "a.safetensors", model)
    again = load(tmp_path / "a.safetensors")
    assert isinstance(again, MLP) and again.config() == model.config()
    x, level = torch.rand(4, 2, 3, 1), torch.zeros(4, dtype=torch.int64)
    assert torch.equal(again(x, level), model(x, level))
    assert isinstance(models.build(model.config()), MLP)


def test_knows_its_own_levels_only():
    assert not hasattr(MLP(), "at_sigma") and not hasattr(MLP(sigmas=[1.0, 0.1]), "at_sigma")


def test_layers():
    net = layers(3, (7,), 2, "relu")
    assert [type(m).__name__ for m in net] == ["Linear", "ReLU", "Linear"]
    assert net[0].weight.shape == (7, 3) and net[2].weight.shape == (2, 7)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (((2,),), r"MLP: shape must be \(C, H, W\), a vector \(D, 1, 1\), got \(2,\)"),
        (((2, 0, 1),), r"MLP: shape must be \(C, H, W\), a vector \(D, 1, 1\), got \(2, 0, 1\)"),
        (((2, 1, 1), ()), r"MLP: hidden must be one or more positive integers, got \(\)"),
        (((2, 1, 1), (4, 0)), r"MLP: hidden must be one or more positive integers, got \(4, 0\)"),
        (((2, 1, 1), (4,), "tanh"), r"MLP: activation must be one of softplus, elu, silu, relu, got 'tanh'"),
        (((2, 1, 1), (4,), "elu", [0.1, 1.0]), r"MLP: sigmas: must be strictly decreasing"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(*arguments)


def test_wrong_input():
    model, level = MLP(), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"MLP: x must be \(B, 2, 1, 1\), got \(3, 2\)"):
        model(torch.zeros(3, 2), level)
    with pytest.raises(TypeError, match=r"MLP: level must be an int64 tensor, got int"):
        model(torch.zeros(3, 2, 1, 1), 0)
    with pytest.raises(ValueError, match=r"MLP: level must be \(3,\), one for each sample, got \(2,\)"):
        model(torch.zeros(3, 2, 1, 1), level[:2])
    with pytest.raises(ValueError, match=r"layers: hidden must be one or more positive integers, got \(True,\)"):
        layers(1, (True,), 1)
