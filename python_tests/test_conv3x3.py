"""The 3x3 convolution by F(4x4, 3x3) and its gradients, against the definition in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F

from langevin_ext import _native, noise
from langevin_ext.models import NCSN, refinenet
from langevin_ext.ops import conv3x3
from langevin_ext.ops.conv3x3 import is_winograd, why_not_fast
from langevin_ext.training import train

LAST = torch.channels_last
NAMES = ("y", "grad_x", "grad_weight", "grad_bias")


def draw(shape, stream, scale=1.0):
    tensor = scale * noise.normal(shape, seed=5, stream=stream)
    return tensor.contiguous(memory_format=LAST) if len(shape) == 4 else tensor


def problem(samples, channels, outputs, size):
    """x, weight, bias and the gradient of the result, which has values of order 1."""
    return (
        draw((samples, channels, *size), 0),
        draw((outputs, channels, 3, 3), 1, (9 * channels) ** -0.5),
        draw((outputs, 1), 2).flatten(),
        draw((samples, outputs, *size), 3),
    )


def definition(x, weight, bias=None, dilation=1):
    return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)


def with_gradients(function, x, weight, bias, grad_y, dilation, dtype=torch.float32):
    tensors = [tensor.to(dtype).detach().requires_grad_() for tensor in (x, weight, bias)]
    y = function(*tensors, dilation)
    return y, *torch.autograd.grad(y, tensors, grad_y.to(dtype))


def error(found, wanted):
    return ((found.double() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("channels, outputs", [(16, 48), (80, 16), (96, 144)])  # parts of runs and panels of 64
@pytest.mark.parametrize("size", [(16, 16), (15, 13), (12, 30)])
def test_values_and_gradients(size, channels, outputs, dilation):
    case = problem(3, channels, outputs, size)
    served = not why_not_fast(channels, outputs, *size, dilation)
    assert served or (size == (15, 13) and dilation == 4)
    found = with_gradients(conv3x3, *case, dilation)
    wanted = with_gradients(definition, *case, dilation, torch.float64)
    for name, a, b in zip(NAMES, found, wanted, strict=True):
        # a few 2^-24 from the sums, which the matrices enlarge about tenfold: 1.3e-6 seen, 1e-1 for a wrong term
        assert error(a, b) < 4e-6, name
        assert a.is_contiguous(memory_format=LAST) or a.dim() == 1, name


def test_many_tiles_go_in_blocks():
    """More tiles than are held at a time, 2^21 / 36 (C + K): the gradient of the weight is a sum over blocks."""
    case = problem(5, 128, 144, (32, 32))
    found, wanted = (with_gradients(f, *case, 1, t) for f, t in ((conv3x3, torch.float32), (definition, torch.float64)))
    for name, a, b in zip(NAMES, found, wanted, strict=True):
        assert error(a, b) < 4e-6, name


def test_neither_threads_nor_batch_change_a_bit():
    x, weight, bias, grad_y = problem(6, 48, 80, (17, 15))
    alone = with_gradients(conv3x3, x, weight, bias, grad_y, 2)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for a, b in zip(with_gradients(conv3x3, x, weight, bias, grad_y, 2), alone, strict=True):
            assert torch.equal(a, b)
    finally:
        torch.set_num_threads(threads)
    parts = [with_gradients(conv3x3, x[part], weight, bias, grad_y[part], 2) for part in (slice(2), slice(2, 6))]
    for i in range(2):
        assert torch.equal(torch.cat([part[i] for part in parts]), alone[i]), NAMES[i]
    assert error(parts[0][2] + parts[1][2], alone[2].double()) < 4e-6


def test_any_strides_and_no_samples():
    x, weight, bias, grad_y = problem(2, 16, 32, (8, 12))
    wanted = with_gradients(conv3x3, x, weight, bias, grad_y, 1)
    turned = [t.flip(0).contiguous().flip(0) for t in (x, weight)]
    found = with_gradients(conv3x3, *turned, bias, grad_y.contiguous(), 1)
    for a, b in zip(found[:3], wanted[:3], strict=True):  # the bias' is torch's sum, whose order is the strides'
        assert torch.equal(a, b)
    y, grad_x, grad_weight, grad_bias = with_gradients(conv3x3, x[:0], weight, bias, grad_y[:0], 1)
    assert y.shape == (0, 32, 8, 12) and grad_x.shape == (0, 16, 8, 12)
    assert not grad_weight.any() and not grad_bias.any()


@pytest.mark.parametrize("dilation", [1, 2])
def test_second_and_third_derivatives(dilation):
    x, weight, bias, grad_y = problem(2, 16, 32, (12, 10))

    def derivatives(function, dtype):
        tensors = [tensor.to(dtype).detach().requires_grad_() for tensor in (x, weight, bias)]
        y = function(*tensors, dilation)
        first = torch.autograd.grad((y.tanh() * grad_y.to(dtype)).sum(), tensors, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), tensors, create_graph=True)
        third = torch.autograd.grad(sum(g.square().sum() for g in second), tensors)
        return *first, *second, *third

    found, wanted = derivatives(conv3x3, torch.float32), derivatives(definition, torch.float64)
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert error(a.detach(), b.detach()) < 2e-5, i  # three convolutions' errors after one another, seen at 2e-6


def test_only_what_is_asked_for():
    x, weight, bias, grad_y = problem(2, 16, 32, (8, 8))
    _, grad_x, grad_weight, _ = with_gradients(conv3x3, x, weight, bias, grad_y, 1)
    for needed, wanted in ((x, grad_x), (weight, grad_weight)):
        needed.requires_grad_()
        conv3x3(x, weight, None).backward(grad_y)
        assert torch.equal(needed.grad, wanted)
        needed.requires_grad_(False)
    assert not conv3x3(x, weight, bias).requires_grad


@pytest.mark.parametrize(
    "channels, outputs, size, dilation, reason",
    [
        (24, 16, (16, 16), 1, "multiples of 16"),
        (16, 3, (16, 16), 1, "multiples of 16"),
        (16, 16, (2, 2), 1, "too small"),
        (16, 16, (8, 8), 4, "too small"),
    ],
)
def test_the_definition_serves_elsewhere(channels, outputs, size, dilation, reason):
    case = problem(2, channels, outputs, size)
    assert reason in why_not_fast(channels, outputs, *size, dilation)
    found, wanted = (with_gradients(function, *case, dilation) for function in (conv3x3, definition))
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)


def test_other_dtypes_devices_and_autocast_are_left_to_torch():
    x, weight, bias, _ = problem(2, 16, 32, (8, 8))
    assert is_winograd(x, weight, bias)
    assert torch.equal(conv3x3(x.double(), weight.double()), definition(x.double(), weight.double()))
    assert conv3x3(x.to("meta"), weight.to("meta")).device.type == "meta"
    assert not is_winograd(x[0], weight) and conv3x3(x[0], weight).shape == (32, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_winograd(x, weight)
        assert conv3x3(x, weight).dtype == torch.bfloat16
    with pytest.raises(RuntimeError):
        conv3x3(x[:, :8], weight)


@pytest.mark.parametrize("length", [33, 31])
def test_a_bias_of_another_length_is_left_to_torch(length):
    x, weight, *_ = problem(2, 16, 32, (8, 8))
    bias = torch.zeros(length)
    assert not is_winograd(x, weight, bias)
    with pytest.raises(RuntimeError):
        conv3x3(x, weight, bias)
    with pytest.raises(ValueError, match=r"^conv3x3: weight must have shape \(K, C, 3, 3\), got \(32, 16, 3, 2\)$"):
        conv3x3(x, weight[..., :2])


@pytest.mark.parametrize("grad", [True, False])
def test_opcheck(grad):
    x, weight, bias, grad_y = problem(2, 16, 32, (8, 8))
    tensors = [tensor.requires_grad_(grad) for tensor in (x, weight, bias, grad_y)]
    ops = torch.ops.langevin_ext
    torch.library.opcheck(ops.conv3x3.default, (*tensors[:3], 1), rtol=1e-4, atol=1e-4)
    torch.library.opcheck(ops.conv3x3_transposed.default, (grad_y, weight, 1), rtol=1e-4, atol=1e-4)
    torch.library.opcheck(ops.conv3x3_weight.default, (x, grad_y, 1), rtol=1e-4, atol=1e-4)


def test_the_core_refuses_what_would_leave_memory():
    core = _native.core(torch.device("cpu"))
    x, weight, _, grad_y = problem(2, 16, 32, (8, 8))
    size = core.winograd_weight_gradient_scratch(x, 32, 1)

    def transform(weight=weight, points=36 * 16 * 32):
        core.winograd_weight(weight, torch.empty(points), False, 1)

    def gradient(x=x, grad_y=grad_y, grad=weight, scratch=size, dilation=1):
        core.winograd_weight_gradient(x, grad_y, grad.clone(), torch.empty(scratch), dilation, 1)

    transform()
    gradient()
    for call, arguments, message in (
        (transform, {"points": 36 * 16 * 32 - 1}, "points must be contiguous float32 and large enough"),
        (transform, {"weight": weight[:, :8].contiguous(memory_format=LAST)}, "multiples of 16"),
        (transform, {"weight": weight.contiguous()}, "weight must be channels-last"),
        (transform, {"weight": weight.double()}, "float32 on the CPU"),
        (transform, {"weight": weight[:, :, :2]}, r"\(K, C, 3, 3\)"),
        (gradient, {"scratch": size - 1}, "scratch must be contiguous float32 and large enough"),
        (gradient, {"x": x[:0]}, "x must not be empty"),
        (gradient, {"x": x.contiguous()}, "x and grad_y must be channels-last"),
        (gradient, {"grad_y": grad_y[:1]}, "grad_y must be float32 in the shape of the result"),
        (gradient, {"grad_y": grad_y[:, :16]}, "grad_y must be float32 in the shape of the result"),
        (gradient, {"grad": draw((32, 32, 3, 3), 0)}, "grad_weight must fit x"),
        (gradient, {"dilation": 0}, "dilation must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            call(**arguments)


def network(winograd=True):
    torch.manual_seed(0)
    net = NCSN((3, 16, 16), 16, torch.tensor([1.0, 0.3, 0.1]))
    for module in net.modules():
        if isinstance(module, refinenet.Conv3x3):
            module.winograd = winograd
    return net


@pytest.fixture
def counted(monkeypatch):
    """The number of kernel calls so far, as a list of names."""
    calls, core = [], _native.core(torch.device("cpu"))

    class Counting:
        def __getattr__(self, name):
            calls.append(name)
            return getattr(core, name)

    monkeypatch.setattr(_native, "core", lambda device: Counting())
    return calls


def parameter_gradients(net, dtype=torch.float32):
    x, level = draw((3, 3, 16, 16), 7).to(dtype), torch.tensor([0, 2, 1])
    return torch.autograd.grad(net(x, level).square().mean(), list(net.parameters()))


def test_a_network_trains_through_it(counted):
    """Its gradients are as near to float64 as those by the definition, and the switch turns it off."""
    found = parameter_gradients(network())
    assert counted.count("winograd") == 2 * counted.count("winograd_weight_gradient") > 100
    counted.clear()
    plain = parameter_gradients(network(winograd=False))
    assert not {"winograd", "winograd_weight", "winograd_weight_gradient"} & set(counted)
    wanted = parameter_gradients(network().double(), torch.float64)
    far, near = (
        error(torch.cat([g.flatten() for g in gradients]), torch.cat([g.flatten() for g in wanted]))
        for gradients in (found, plain)
    )
    assert near < 1e-5 and far < 3 * near + 2e-6  # both about 1e-6


def test_sliced_score_matching_through_a_network():
    """Second derivatives of a whole network, v^T Ds(x) v."""

    def product(net, dtype):
        x = draw((2, 3, 16, 16), 8).to(dtype).requires_grad_()
        v = draw((2, 3, 16, 16), 9).to(dtype)
        (row,) = torch.autograd.grad((net(x, torch.tensor([0, 2])) * v).sum(), x, create_graph=True)
        gradients = torch.autograd.grad((row * v).sum(), list(net.parameters()), materialize_grads=True)
        return torch.cat([g.flatten() for g in gradients])

    # some hundred layers' roundings twice; a wrong term is of order 1
    assert error(product(network(), torch.float32), product(network().double(), torch.float64)) < 1e-4


def test_compile_copy_and_state(counted):
    net = network()
    x, level = draw((2, 3, 16, 16), 7), torch.tensor([0, 2])
    wanted = net(x, level)
    assert "winograd" in counted
    assert torch.equal(copy.deepcopy(net)(x, level), wanted)
    assert list(net.state_dict()) == list(network(winograd=False).state_dict())
    conv = net.res1[0].conv1
    x = draw((2, 16, 16, 16), 7)
    compiled = torch.compile(conv, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), conv(x))


def test_resume_is_bit_equal(tmp_path, counted):
    def run(folder, *stops):
        for steps in stops:
            options = {"batch_size": 3, "save_every": 1, "progress": False, "tensorboard": False}
            trained = train(network(), draw((6, 3, 16, 16), 7), out=tmp_path / folder, steps=steps, **options)
        return trained.state_dict()

    whole, resumed = run("whole", 3), run("resumed", 1, 3)
    assert "winograd_weight_gradient" in counted
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_the_pooled_convolution():
    """Convolution and mean of 2x2 pixels, by F(4x4, 3x3) and as one convolution of stride 2."""
    torch.manual_seed(0)
    pooled = refinenet.ConvMeanPool(16, 32, 3)
    x = draw((2, 16, 12, 8), 7)
    found = pooled(x)
    pooled.conv.winograd = False
    wanted = F.avg_pool2d(pooled.double().conv(x.double()), 2)
    assert error(found, wanted) < 4e-6
    assert error(pooled(x.double()), wanted) < 1e-14


def test_arguments_that_do_not_fit():
    x, weight = torch.randn(1, 16, 8, 8), torch.randn(16, 16, 3, 3)
    for dilation in (0, -1, 2.0, (1, 1)):
        with pytest.raises(ValueError, match="conv3x3: dilation must be an integer >= 1, got "):
            conv3x3(x, weight, None, dilation)
    for bias in (torch.zeros(5), torch.zeros(16, 1)):  # torch's own words
        with pytest.raises(RuntimeError, match="bias"):
            conv3x3(x, weight, bias)
