"""Who adds a convolution's bias in an engine: itself, or whoever reads its result first."""

import pytest
import torch
from test_engine import NETWORKS, exact, inputs, make, relative_error

from langevin_ext import engine
from langevin_ext.engine import channels_last, network
from langevin_ext.ops import norm_forms


def test_norms_add_the_biases(monkeypatch):
    """Of 75 convolutions 27 have one. The first and the last add theirs; 8 norms add that of a block's first, 8 that of
    its second and of its shortcut; those of the 6 in fusions are added before a pooling's ELU."""
    model, (x, level) = make("NCSN", (1, 8, 8), 8), inputs((1, 8, 8), 2)
    convs, norms, real, launch = [], [], torch.nn.functional.conv2d, norm_forms.launch

    def conv2d(x, weight, bias, *sizes):
        convs.append(bias)
        return real(x, weight, bias, *sizes)

    def norm(*args, bias, pool):
        norms.append((bias is not None, pool))
        launch(*args, bias=bias, pool=pool)

    monkeypatch.setattr(channels_last.F, "conv2d", conv2d)
    monkeypatch.setattr(norm_forms, "launch", norm)
    engine.gpu_form(model, "fp16")(x, level)
    assert len(convs) == 75 and sum(b is not None for b in convs) == 2
    assert len(norms) == 71 and sum(bias for bias, _ in norms) == 16 and sum(pool for _, pool in norms) == 8


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", [engine.gpu_form, engine.build])
@pytest.mark.parametrize("shape, ngf", [((3, 16, 16), 32), ((1, 9, 13), 7)])
def test_a_bias_wherever_there_may_be_one(name, form, shape, ngf):
    """Also where no norm reads a convolution's result: maxima, sums of units, interpolation."""
    model, (x, level) = make(name, shape, ngf), inputs(shape, 3)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.bias is None:
            module.bias = torch.nn.Parameter(torch.randn(module.out_channels, generator=generator))
    assert relative_error(form(model, precision="fp32")(x, level), exact(model, x, level)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_bias_is_added_by_who_reads(dtype):
    model, arena = make("NCSN", (1, 8, 8), 8), channels_last.Fresh(dtype, "cpu")
    norm, level = network.Norm(model.normalizer, channels_last.GpuForms(dtype), (2, 5, 7)), torch.tensor([0, 2])
    x, other = (torch.randn(2, 8, 5, 7).to(dtype).contiguous(memory_format=torch.channels_last) for _ in range(2))
    bias = torch.randn(8)
    alone, both = network.Sum(x.clone(), bias=bias), network.Sum(x.clone(), other.clone(), bias)
    exact_sum = (x.float() + other.float() + bias[:, None, None]).to(dtype)
    with torch.no_grad():
        y = norm(alone, arena, level)
        assert torch.equal(alone.x, x) and alone.bias is bias  # nobody has added it
        wide = network.Norm(model.normalizer, channels_last.GpuForms(torch.float32), (2, 5, 7))
        total = x.float() + bias[:, None, None]
        expected = wide(total, channels_last.Fresh(torch.float32, "cpu"), level)
        unit = 2.0**-11 if dtype == torch.float16 else 2.0**-24
        torch.testing.assert_close(y.float(), expected, rtol=unit, atol=32 * 2.0**-24 * float(expected.abs().max()))
        assert torch.equal(norm(both, arena, level), norm(exact_sum, arena, level))
        assert torch.equal(both.x, exact_sum) and both.residual is both.bias is None
        assert torch.equal(alone.value(arena), total.to(dtype)) and alone.bias is None
