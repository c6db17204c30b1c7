"""Second derivatives through the networks, as sliced score matching takes them (Song, Garg, Shi and Ermon 2019,
arXiv:1905.07088, equation 8), against the same network on autograd of the plain formulas alone."""

import pytest
import torch

from langevin_ext import noise, ops, reference
from langevin_ext.models import NCSN, NCSNv2, norm

SHAPE = (3, 1, 8, 8)


class PlainOps:
    instance_norm_plus = staticmethod(reference.instance_norm_plus)


@pytest.fixture
def plain(monkeypatch):
    """After plain(), networks normalise by plain torch, which autograd differentiates step by step."""
    return lambda: monkeypatch.setattr(norm, "ops", PlainOps)


def network(kind):
    torch.manual_seed(0)
    return kind(shape=SHAPE[1:], ngf=4, sigmas=torch.tensor([1.0, 0.3, 0.1])).to(torch.float64)


def sliced_gradients(net, dtype=torch.float64):
    """The gradient of the sum of v^T Ds(x) v + |s|^2 / 2 in every parameter, and the loss."""
    net = net.to(dtype)
    x = noise.normal(SHAPE, seed=1).to(dtype).requires_grad_()
    v = noise.normal(SHAPE, seed=1, stream=noise.SSM).to(dtype)
    s = net(x, torch.tensor([0, 2, 1]))
    (product,) = torch.autograd.grad((s * v).sum(), x, create_graph=True)
    loss = (product * v).sum() + 0.5 * s.square().sum()
    return [loss, *torch.autograd.grad(loss, list(net.parameters()))]


@pytest.mark.parametrize("kind", [NCSN, NCSNv2])
def test_sliced_score_matching_through_a_network(backend, plain, kind):
    found = sliced_gradients(network(kind))
    plain()
    wanted = sliced_gradients(network(kind))
    size = max(gradient.abs().max().item() for gradient in wanted)
    for a, b in zip(found, wanted, strict=True):
        # float64 in another order: some hundred layers' roundings, seen at 1e-13 of the largest
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11 * size)


@pytest.mark.parametrize("kind", [NCSN, NCSNv2])
def test_sliced_score_matching_in_float32(backend, plain, kind):
    found = sliced_gradients(network(kind), torch.float32)
    plain()
    wanted = sliced_gradients(network(kind))
    for a, b in zip(found, wanted, strict=True):
        # 2^-24 for each of some hundred layers, three times: 2e-5 of the tensor's norm; a wrong term is far above
        assert (a.double() - b).norm() <= 1e-4 * b.norm() + 1e-6 * wanted[0].abs()


def test_the_derivative_itself_checks(plain):
    """v^T Ds v by central differences: (s(x + h v) - s(x - h v)) v / 2 h, off by h^2 and 1e-16 / h."""
    net, h = network(NCSN), 1e-5
    x, v = (noise.normal(SHAPE, seed=2, stream=stream).double() for stream in (0, noise.SSM))
    level = torch.tensor([0, 2, 1])
    differences = ((net(x + h * v, level) - net(x - h * v, level)) * v).sum() / (2 * h)
    (product,) = torch.autograd.grad((net(x.requires_grad_(), level) * v).sum(), x, create_graph=True)
    assert (product * v).sum().item() == pytest.approx(differences.item(), rel=1e-6)


def test_a_graph_does_not_change_the_gradient(backend):
    x, weight = (noise.normal(size, seed=3, stream=i).requires_grad_() for i, size in enumerate([(2, 3, 5, 7), (4, 9)]))
    results = []
    for create_graph in (False, True):
        y = ops.instance_norm_plus(x, weight, torch.tensor([3, 1]), elu=True)
        results.append(torch.autograd.grad(y.square().sum(), [x, weight], create_graph=create_graph))
    for a, b in zip(*results, strict=True):
        assert b.requires_grad and torch.equal(a, b)


def test_third_derivatives(backend):
    x, weight = (noise.normal(size, seed=4, stream=i).double() for i, size in enumerate([(2, 2, 2, 2), (1, 6)]))

    def product(x, weight):
        y = ops.instance_norm_plus(x, weight, elu=True, eps=0.1)
        return torch.autograd.grad(y.sin().sum(), [x, weight], create_graph=True)

    arguments = [t.requires_grad_() for t in (x, weight)]
    assert torch.autograd.gradcheck(product, arguments)
    assert torch.autograd.gradgradcheck(product, arguments)


def test_second_derivatives_of_half_precision(backend):
    """In bfloat16 the products are computed in float32 and rounded once each: y', then its derivative."""
    shape = (2, 4, 6, 6)
    x, v, w = (noise.normal(shape, seed=5, stream=i).bfloat16() for i in range(3))
    weight = noise.normal((1, 12), seed=5, stream=3)

    def second(function, dtype):
        a = x.to(dtype).requires_grad_()
        y = function(a, weight.to(torch.float64 if dtype == torch.float64 else torch.float32))
        (product,) = torch.autograd.grad(y, a, v.to(dtype), create_graph=True)
        return torch.autograd.grad(product, a, w.to(dtype))[0]

    found, wanted = second(ops.instance_norm_plus, torch.bfloat16), second(reference.instance_norm_plus, torch.float64)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), wanted, rtol=2.0**-8, atol=1e-5 * wanted.abs().max().item())


def test_linear_ops_have_no_second_derivative_left(backend):
    """perturb is x + sigma z: its gradient is that of x, whatever is done with it next."""
    x, sigma = noise.normal((2, 3, 4), seed=6).double().requires_grad_(), torch.tensor([0.5, 2.0]).double()
    assert torch.autograd.gradgradcheck(lambda x: ops.perturb(x, sigma, seed=1, step=0), [x])
    assert torch.autograd.gradgradcheck(lambda x: ops.perturb(x, sigma, seed=1, step=0) ** 3, [x])
