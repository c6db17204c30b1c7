"""The networks against the released ones' golden outputs, layouts and a separate re-creation."""

import hashlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import CASES, GRADIENT_CASES, fill, inputs

from langevin_ext import models
from langevin_ext.schedules import geometric_sigmas

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "benchmarks"))

from official import official_forward  # noqa: E402


@pytest.fixture(scope="module")
def golden():
    return {
        key: torch.from_numpy(value)
        for name in ("ncsn", "ncsnv2")
        for key, value in np.load(HERE / "data" / f"golden_{name}.npz").items()
    }


def make(case):
    name, shape, ngf, sigmas, batch = CASES[case]
    config = {"class": name, "shape": shape, "ngf": ngf, "sigmas": geometric_sigmas(*sigmas).tolist()}
    return fill(models.build(config)), *inputs(shape, batch, sigmas[2])


def relative_error(got, expected):
    return ((got.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("case", CASES)
def test_output_equals_the_released_network(case, golden):
    model, x, level, _ = make(case)
    for grad in (False, True):  # additions in place without gradients, out of place with them
        with torch.set_grad_enabled(grad):
            y = model(x.float(), level)
        assert y.shape == x.shape and y.dtype == torch.float32 and y.is_contiguous()
        assert relative_error(y.detach(), golden[case]) < 1e-5
    with torch.inference_mode():
        assert relative_error(model.double()(x, level), golden[case]) < 1e-12


@pytest.mark.parametrize("case", GRADIENT_CASES)
def test_gradients_equal_the_released_networks(case, golden):
    model, x, level, weights = make(case)
    for dtype, bound in ((torch.float32, 2e-5), (torch.float64, 1e-12)):
        model, leaf = model.to(dtype), x.to(dtype).requires_grad_()
        parameters = [parameter for _, parameter in sorted(model.named_parameters())]
        loss = (model(leaf, level) * weights.to(dtype)).sum()
        grad_x, *grads = torch.autograd.grad(loss, [leaf, *parameters])
        assert relative_error(grad_x, golden[f"{case}.grad_x"]) < bound
        norms = torch.stack([grad.double().norm() for grad in grads])
        assert ((norms - golden[f"{case}.grad_norms"]).abs() / golden[f"{case}.grad_norms"]).max() < bound


@pytest.mark.parametrize(
    "arguments, entries, parameters, digest",
    [
        # digest of the lines "name shape" in the released state dict's order
        (("NCSN", (3, 32, 32), 128, (1.0, 0.01, 10)), 173, 30_117_635, "0ac25e580fa34962"),
        (("NCSN", (1, 28, 28), 64, (1.0, 0.01, 10)), 173, 7_638_657, "a160b53eacb9bc7f"),
        (("NCSNv2", (3, 32, 32), 128, (50.0, 0.01, 232)), 154, 29_694_083, "1671c4ac329e61c9"),
    ],
    ids=["cifar10", "mnist", "v2"],
)
def test_layout_is_the_released_one(arguments, entries, parameters, digest):
    name, shape, ngf, sigmas = arguments
    with torch.device("meta"):
        model = models.CLASSES[name](shape, ngf)
    state = model.state_dict()
    lines = "\n".join(f"{key} {tuple(value.shape)}" for key, value in state.items())
    assert len(state) == entries
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert hashlib.sha256(lines.encode()).hexdigest().startswith(digest)
    assert len(model.sigmas) == sigmas[2]


def mean_of_present_pixels(x):
    """Mean over 2x2 pixels of an image padded to even size with nothing."""
    padded = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), value=math.nan)
    return padded.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).nanmean(4)


@pytest.mark.parametrize("name", ["NCSN", "NCSNv2"])
@pytest.mark.parametrize("shape, ngf", [((2, 9, 8), 3), ((1, 8, 13), 4), ((3, 11, 15), 2), ((5, 18, 10), 7)])
def test_any_size_equals_the_separate_operations(name, shape, ngf):
    model = fill(models.CLASSES[name](shape, ngf, [1.0, 0.5, 0.1]))
    x, level, _ = inputs(shape, 3, 3)
    with torch.no_grad():
        single = model(x.float(), level)
        expected = official_forward(
            model.double().state_dict() | {"sigmas": model.sigmas}, x, level, mean_of_present_pixels
        )
        assert relative_error(model(x, level), expected) < 1e-12
    assert relative_error(single, expected) < 1e-5


@pytest.mark.parametrize("name", ["NCSN", "NCSNv2"])
def test_gradcheck_of_the_whole_network(name):
    model = fill(models.CLASSES[name]((1, 8, 9), 2, [1.0, 0.3])).double()
    x, level, _ = inputs(model.shape, 2, 2)
    chosen = {
        key: parameter
        for key, parameter in model.named_parameters()
        if key.startswith(("begin_conv", "res2.0", "refine4.msf", "normalizer"))
    }

    def score(x, *values):
        return torch.func.functional_call(model, dict(zip(chosen, values, strict=True)), (x, level))

    torch.manual_seed(0)  # of the fast mode's random projections
    assert torch.autograd.gradcheck(score, (x.requires_grad_(), *chosen.values()), fast_mode=True)


def test_forward_leaves_its_input_alone_and_repeats():
    model, x, level, _ = make("tiny")
    x = x.float().contiguous(memory_format=torch.channels_last)
    before = x.clone()
    with torch.inference_mode():
        first, second = model(x, level), model(x, level)
    assert torch.equal(x, before) and torch.equal(first, second)


@pytest.mark.parametrize("case", ["tiny", "v2_tiny"])
def test_a_sample_does_not_depend_on_its_batch(case):
    model, x, level, _ = make(case)
    with torch.no_grad():
        together = model(x.float(), level)
        for i in range(len(x)):
            assert relative_error(model(x[i : i + 1].float(), level[i : i + 1]), together[i : i + 1].double()) < 1e-5


def test_the_level_chooses_the_embedding_row():
    model, x, _, _ = make("tiny")
    with torch.no_grad():
        before = model(x.float(), torch.tensor([1, 2]))
        for norm in model.modules():
            if isinstance(norm, models.ConditionalInstanceNorm2dPlus):
                norm.embed.weight[2] *= 1.5
        after = model(x.float(), torch.tensor([1, 2]))
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1], rtol=0.01)


def test_v2_is_the_network_divided_by_sigma():
    model, x, _, _ = make("v2_tiny")
    x, level = x.float(), torch.tensor([3, 11])
    with torch.no_grad():
        score = model(x, level)
        assert torch.equal(model.at_sigma(x, model.sigmas[level]), score)
        torch.testing.assert_close(model.at_sigma(x, 0.25), model.features(x) * 4)
        torch.testing.assert_close(model.at_sigma(x, torch.tensor(0.25)), model.features(x) * 4)


@pytest.mark.parametrize("name", ["NCSN", "NCSNv2"])
def test_config_rebuilds_the_network(name):
    model = models.CLASSES[name]((2, 8, 10), 3, geometric_sigmas(2.0, 0.03, 7))
    again = models.build(model.config())
    assert type(again) is type(model) and again.shape == (2, 8, 10) and again.config() == model.config()
    assert torch.equal(again.sigmas, model.sigmas) and again.sigmas.dtype == torch.float32
    again.load_state_dict(model.state_dict())


def test_default_sigmas_are_the_released_ones():
    with torch.device("meta"):
        counts = [len(models.NCSN().sigmas), len(models.NCSNv2().sigmas)]
    assert counts == [10, 232]
    sigmas = models.NCSN(ngf=1).sigmas
    expected = [1, 0.59948425, 0.35938137, 0.21544347, 0.12915497, 0.07742637, 0.04641589, 0.02782559, 0.01668101, 0.01]
    torch.testing.assert_close(sigmas, torch.tensor(expected))


@pytest.mark.parametrize("bias", [True, False])
def test_norm_parameters_are_the_released_ones(bias):
    torch.manual_seed(1)
    norm = models.ConditionalInstanceNorm2dPlus(400, 5, bias=bias)
    scales, shifts = norm.embed.weight[:, :800], norm.embed.weight[:, 800:]
    assert norm.embed.weight.shape == (5, 1200 if bias else 800)
    assert abs(scales.mean() - 1) < 5 * 0.02 / 4000**0.5 and abs(scales.std() / 0.02 - 1) < 5 / 8000**0.5
    assert not shifts.any()
    single = models.InstanceNorm2dPlus(400, bias=bias)
    assert [name for name, _ in single.named_parameters()] == ["alpha", "gamma"] + ["beta"] * bias
    for scale in (single.alpha, single.gamma):
        assert abs(scale.mean() - 1) < 5 * 0.02 / 400**0.5 and 0.015 < scale.std() < 0.025


def test_both_norms_give_the_worked_example():
    x = torch.tensor([[[1.0, 2], [3, 4]], [[0, 0], [4, 8]], [[-1, 1], [1, 3]]])[None]
    gamma, alpha, beta = torch.tensor([1, 0.5, 2]), torch.tensor([1, -0.5, 0.25]), torch.tensor([0.1, 0, -0.2])
    expected = torch.tensor(
        [
            [-0.92138059, -0.02695698, 0.86746664, 1.76189025],
            [-0.65242608, -0.65242608, -0.04940366, 0.55361875],
            [-3.58886601, -0.76044595, -0.76044595, 2.06797410],
        ]
    ).view(1, 3, 2, 2)
    conditional = models.ConditionalInstanceNorm2dPlus(3, 2)
    single = models.InstanceNorm2dPlus(3)
    with torch.no_grad():
        conditional.embed.weight[1] = torch.cat([gamma, alpha, beta])
        single.alpha.copy_(alpha), single.gamma.copy_(gamma), single.beta.copy_(beta)
    for y in (conditional(x, torch.tensor([1])), single(x)):
        torch.testing.assert_close(y, expected)
    torch.testing.assert_close(single(x, elu=True), F.elu(expected))
    y, total = single(x - 3, residual=torch.full_like(x, 3.0))
    torch.testing.assert_close((y, total), (expected, x))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(shape=(3, 7, 32)), "NCSN: shape must be .* at least 8, got"),
        (dict(shape=(0, 8, 8)), "NCSN: shape must be"),
        (dict(shape=(32, 32)), "NCSN: shape must be"),
        (dict(ngf=0), "NCSN: ngf must be a positive integer, got 0"),
        (dict(ngf=8.0), "NCSN: ngf must be a positive integer, got 8.0"),
        (dict(sigmas=[0.1, 1.0]), "NCSN: sigmas"),
        (dict(sigmas=[1.0, 0.0]), "NCSN: sigmas"),
        (dict(sigmas=[]), "NCSN: sigmas"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.NCSN(**({"shape": (1, 8, 8), "ngf": 2} | arguments))


@pytest.mark.parametrize("name", ["NCSN", "NCSNv2"])
def test_wrong_inputs_are_refused(name):
    model = models.CLASSES[name]((1, 8, 8), 2, [1.0, 0.1])
    x, level = torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)
    for bad in (x[0], x[:, :, :7], x.expand(2, 3, 8, 8)):
        with pytest.raises(ValueError, match=f"{name}: x must be \\(B, 1, 8, 8\\), got"):
            model(bad, level)
    for bad in (level[:1], level[:, None]):
        with pytest.raises(ValueError, match=f"{name}: level must be \\(2,\\)"):
            model(x, bad)
    for bad in (level.float(), level.int(), 3):
        with pytest.raises(TypeError, match=f"{name}: level must be an int64 tensor, got"):
            model(x, bad)


def test_build_names_what_it_knows():
    with pytest.raises(ValueError, match="class of CLDNet, Classifier, FSRCNN, MLP, NCSN, NCSNv2, got 'UNet'"):
        models.build({"class": "UNet"})
    with pytest.raises(ValueError, match="arguments of NCSN"):
        models.build({"class": "NCSN", "width": 3})
