"""The engine's form for a GPU: on the CPU what does not depend on the device, on a GPU its precisions."""

import pytest
import torch
from test_engine import NETWORKS, exact, inputs, make, relative_error, rms_error

from langevin_ext import engine
from langevin_ext.engine import channels_last, convolutions, network
from langevin_ext.engine import engine as building
from langevin_ext.models.refinenet import ConvMeanPool

SHAPES = [((3, 16, 16), 32, 2), ((1, 9, 13), 16, 3), ((3, 11, 8), 7, 4), ((1, 8, 8), 8, 1)]
# bf16, fp16: each of the 75 convolutions adds about 2^-9 or 2^-12, sqrt(75) of that, and twice that for what adds up;
# TF32 has the digits of fp16
BOUND = {"fp32": 1e-5, "tf32": 8.5e-3, "fp16": 4.3e-3, "bf16": 3.4e-2}


def switch():
    return torch.backends.cudnn.conv.fp32_precision


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape, ngf, batch", SHAPES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_near_the_network(name, shape, ngf, batch, precision):
    model, (x, level) = make(name, shape, ngf), inputs(shape, batch)
    fast, before, switched = engine.gpu_form(model, precision), x.clone(), switch()
    y = fast(x, level)
    assert y.shape == x.shape and y.dtype == torch.float32 and y.is_contiguous() and not y.is_inference()
    assert rms_error(y, exact(model, x, level)) < BOUND[precision]
    assert torch.equal(fast(x, level), y) and torch.equal(x, before) and switch() == switched
    with torch.inference_mode():
        assert torch.equal(fast(x, level), y)
    assert fast.notes == [f"GPU engine in {precision}, channels-last"] and fast.precision == precision


def test_any_batch_any_sigma_and_changed_weights():
    model, (x, level) = make("NCSNv2"), inputs((3, 16, 16), 5)
    fast = engine.gpu_form(model, "fp32")
    whole = fast(x, level)
    assert relative_error(torch.cat([fast(x[:2], level[:2]), fast(x[2:], level[2:])]), whole.double()) < 1e-5
    sigma = torch.tensor([0.5, 0.2, 0.4, 1.0, 3.0])
    with torch.no_grad():
        assert relative_error(fast.at_sigma(x, sigma), model.at_sigma(x, sigma).double()) < 1e-5
        weights = fast.network()
        assert fast.network() is weights
        model.res1[0].conv1.weight.mul_(1.5)
    assert fast.network() is not weights
    assert relative_error(fast(x, level), exact(model, x, level)) < 1e-5


def test_convolutions_leave_sums_to_the_norms(monkeypatch):
    """Of the 39 sums norms make 31: 8 of blocks, 14 + 6 of units but the one before a pooling's ELU, and the 4 of the
    poolings' second stages. On the CPU convolutions make all but these 4."""
    model, (x, level) = make("NCSN", (1, 8, 8), 8), inputs((1, 8, 8), 2)
    sums = []
    real = network.Norm.__call__

    def norm(self, h, *args, **options):
        sums.append(isinstance(h, network.Sum) and h.residual is not None)
        return real(self, h, *args, **options)

    monkeypatch.setattr(network.Norm, "__call__", norm)
    engine.gpu_form(model, "fp32")(x, level)
    gpu = sum(sums)
    sums.clear()
    engine.build(model)(x, level)
    assert len(sums) == 71
    assert (gpu, sum(sums)) == (31, 4)


def test_a_sum_in_place_is_that_of_two_tensors():
    """The norm's kernel may write the sum over x."""
    model, arena = make("NCSN", (1, 8, 8), 8), channels_last.Fresh(torch.float32, "cpu")
    norm, level = network.Norm(model.normalizer), torch.tensor([0, 2])
    x, other = (torch.randn(2, 8, 5, 7).contiguous(memory_format=torch.channels_last) for _ in range(2))
    with torch.no_grad():
        expected = norm(x + other, arena, level)
        total = x + other
        h = network.Sum(x.clone(memory_format=torch.channels_last), other)
        assert torch.equal(norm(h, arena, level), expected)
    assert torch.equal(h.x, total) and h.residual is None


@pytest.mark.parametrize("size", [(8, 8), (7, 8)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_pooled_convolutions(size, kernel):
    module = ConvMeanPool(5, 6, kernel)
    x = torch.randn(2, 5, *size)
    with torch.no_grad():
        conv = channels_last.GpuForms(torch.float32).pooled(module, (2, *size))
        torch.testing.assert_close(conv(x, None), module(x), rtol=1e-5, atol=1e-5)
    assert isinstance(conv, convolutions.Pooled) == (kernel == 1 or size == (7, 8)) and not conv.adds


def test_tf32_is_switched_for_the_pass_alone(monkeypatch):
    seen, real = [], torch.nn.functional.conv2d

    def conv2d(*args, **options):
        seen.append(switch())
        return real(*args, **options)

    monkeypatch.setattr(channels_last.F, "conv2d", conv2d)
    model, (x, level) = make("NCSN", (1, 8, 8), 4), inputs((1, 8, 8), 1)
    before = switch()
    for precision, expected in (("tf32", "tf32"), ("fp32", "ieee"), ("fp16", "ieee")):
        seen.clear()
        engine.gpu_form(model, precision)(x, level)
        assert set(seen) == {expected} and switch() == before
    with pytest.raises(ZeroDivisionError), channels_last.float32_convolutions("ieee"):
        raise ZeroDivisionError
    assert switch() == before


@pytest.mark.parametrize("name", NETWORKS)
def test_auto_is_fp16_where_that_is_finite(name):
    model = make(name, (1, 8, 8), 8)
    assert building._on_gpu(model, "auto", 4).precision == "fp16"
    assert building._on_gpu(model, "tf32", 4).precision == "tf32"
    with torch.no_grad():  # the first convolution's result is beyond 65504, the largest number of fp16
        model.begin_conv.weight.mul_(1e7)
    fast = building._on_gpu(model, "auto", 4)
    assert fast.precision == "bf16"
    assert fast.notes[-1] == "bf16 for fp16, in which scores of its starting points are not finite"


@pytest.mark.cuda
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "auto"])
def test_precisions_on_a_gpu(name, precision):
    for shape, ngf, batch in [*SHAPES, ((3, 32, 32), 64, 4)]:
        model, (x, level) = make(name, shape, ngf), inputs(shape, batch)
        expected = exact(model, x, level)
        model, switched = model.cuda(), switch()
        fast = engine.build(model, precision=precision)
        y = fast(x.cuda(), level.cuda())
        error = rms_error(y.cpu(), expected)
        assert error < BOUND[fast.precision] and switch() == switched
        if ngf == 64:  # channels that the tensor cores take
            assert (error > 1e-5) == (fast.precision != "fp32")
        assert torch.equal(fast(x.cuda(), level.cuda()), y)


@pytest.mark.cuda
def test_mistakes_on_a_gpu():
    model, (x, level) = make("NCSN", (1, 8, 8), 4).cuda(), inputs((1, 8, 8), 2)
    fast = engine.build(model)
    with pytest.raises(TypeError, match="engine: x must be float32 on cuda:0, got torch.float32 on cpu"):
        fast(x, level)
    with pytest.raises(ValueError, match="engine: device must be the model's, cuda:0, got cpu"):
        engine.build(model, device="cpu")
    y = fast(x.cuda(), torch.tensor([0, 7], device="cuda"))
    assert y[0].isfinite().all() and y[1].isnan().all()
