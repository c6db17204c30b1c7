"""torch.func and forward-mode derivatives through the ops and networks: right, or refused."""

import pytest
import torch
from torch.autograd import forward_ad

from langevin_ext import models, ops, reference

AT = {"seed": 3, "step": 1}
SIGMA = torch.tensor([0.5, 2.0])
WEIGHT = torch.randn(2, 48, generator=torch.Generator().manual_seed(1))
KERNEL = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(2)) / 12
LEVEL = torch.tensor([1, 0])


def image(seed, dtype=torch.float64):
    return torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


OPS = {
    "perturb": lambda x: ops.perturb(x, SIGMA.to(wide(x)), **AT),
    "dsm_loss": lambda x: ops.dsm_loss(x, SIGMA.to(wide(x)), **AT),
    "instance_norm_plus": lambda x: ops.instance_norm_plus(x, WEIGHT.to(wide(x)), LEVEL, elu=True),
    "residual": lambda x: ops.instance_norm_plus(x, WEIGHT.to(wide(x)), LEVEL, residual=x.square())[0],
    "upsample_bicubic2x": lambda x: ops.upsample_bicubic2x(x, sigma=0.3, **AT),
    "next input": lambda x: ops.upsample_bicubic2x(x, sigma=0.3, input_dtype=torch.float32, **AT)[1],
    "conv3x3": lambda x: ops.conv3x3(x, KERNEL.to(x.dtype)),
}
ROWS = [(name, dtype) for name in OPS for dtype in (torch.float64, torch.float32)]
ROWS += [("perturb", torch.bfloat16), ("dsm_loss", torch.float16), ("instance_norm_plus", torch.float16)]


def wide(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@pytest.fixture(params=ROWS, ids=lambda row: f"{row[0]}-{str(row[1])[6:]}")
def op(request):
    name, dtype = request.param
    f, x, v = OPS[name], image(4, dtype), image(5, dtype)
    y = f(x)
    return f, x, v, y, torch.randn(y.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64).to(y.dtype)


def backward(f, x, pull):
    """The gradient of <pull, f(x)>, by the op's own backward."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad((f(x) * pull).sum(), x)[0]


def near(actual, wanted):
    """Up to the rounding of sums in another order, of F(4x4, 3x3) in float32, of 16-bit results once or twice."""
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}[wanted.dtype]
    torch.testing.assert_close(actual, wanted, rtol=tolerance, atol=tolerance * wanted.abs().max().item())


def test_tangents_agree_with_gradients(op):
    """<pull, J v> = <J^T pull, v>, by torch.func.jvp and by dual numbers; a tangent that is left out gives 0."""
    f, x, v, y, pull = op
    terms = backward(f, x, pull).double() * v.double()
    value, tangent = torch.func.jvp(f, (x,), (v,))
    near(value, y)
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5}.get(y.dtype, 1e-3)
    assert tangent.abs().max() > 0.1
    assert abs((tangent.double() * pull.double()).sum() - terms.sum()) <= tolerance * terms.abs().sum()
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(f(forward_ad.make_dual(x, v)))
    near(dual.primal, y)
    near(dual.tangent, tangent)


def test_reverse_transforms_agree_with_gradients(op):
    f, x, _, y, pull = op
    wanted = backward(f, x, pull)
    near(torch.func.grad(lambda x: (f(x) * pull).sum())(x), wanted)
    value, pulled = torch.func.vjp(f, x)
    near(value, y)
    near(pulled(pull)[0], wanted)


def test_a_dual_number_into_a_compiled_function_keeps_its_tangent(op):
    f, x, v, _, _ = op
    torch._dynamo.reset()  # which counts how often the lines below are compiled
    compiled = torch.compile(f, backend="eager", fullgraph=True)
    with forward_ad.dual_level():
        tangents = [forward_ad.unpack_dual(g(forward_ad.make_dual(x, v))).tangent for g in (compiled, f)]
    near(*tangents)


@pytest.mark.parametrize("name", ["instance_norm_plus", "residual", "conv3x3"])
def test_tangents_that_reach_a_backward_pass_alone(name):
    """The forward pass knows of none: it came before, or only the gradient has one. Of the first derivatives and, for
    the convolution, of its gradients' own."""
    dtype = torch.float32 if name == "conv3x3" else torch.float64
    f, x, v = OPS[name], image(4, dtype).requires_grad_(), image(5, dtype)
    y = f(x)
    w, dw = torch.randn_like(y), torch.randn_like(y)
    wanted = torch.autograd.grad(y, x, dw, retain_graph=True)[0]  # linear in the gradient
    assert wanted.abs().max() > 0.1
    with forward_ad.dual_level():
        dual = torch.autograd.grad(y, x, forward_ad.make_dual(w, dw), retain_graph=True)[0]
        near(forward_ad.unpack_dual(dual).tangent, wanted)
    (pulled,) = torch.autograd.grad(y, x, w.requires_grad_(), create_graph=True)
    twice = torch.autograd.grad(pulled, w, v, retain_graph=True)[0]
    with forward_ad.dual_level():
        dual = torch.autograd.grad(pulled, w, forward_ad.make_dual(torch.zeros_like(v), v))[0]
        near(forward_ad.unpack_dual(dual).tangent, twice)


def test_vmap_is_a_loop(op):
    f, x, v, _, _ = op
    near(torch.func.vmap(f)(torch.stack([x, v])), torch.stack([f(x), f(v)]))


def test_compiled_transforms_keep_their_tangents(op):
    f, x, v, _, _ = op
    torch._dynamo.reset()  # which counts how often the lines below are compiled
    compiled = torch.compile(lambda x, v: torch.func.jvp(f, (x,), (v,))[1], backend="eager", fullgraph=True)
    near(compiled(x, v), torch.func.jvp(f, (x,), (v,))[1])


def test_divergence_of_a_network():
    """Of the score, exactly: forward-mode against backward, one coordinate after another."""
    torch.manual_seed(0)
    model = models.NCSN((1, 8, 8), 16, sigmas=[1.0, 0.1]).eval()
    x, level = torch.rand(1, 1, 8, 8), torch.tensor([1])
    directions = torch.eye(64).view(64, 1, 1, 8, 8)[::9]
    forward = [torch.func.jvp(lambda x: model(x, level), (x,), (v,))[1].mul(v).sum() for v in directions]
    x.requires_grad_()
    score = model(x, level)
    reverse = [torch.autograd.grad((score * v).sum(), x, retain_graph=True)[0].mul(v).sum() for v in directions]
    assert max(abs(one.item()) for one in reverse) > 0.1
    torch.testing.assert_close(torch.stack(forward), torch.stack(reverse), rtol=1e-3, atol=1e-3)


def test_a_network_under_vmap_and_forward_over_reverse():
    torch.manual_seed(0)
    model = models.NCSN((1, 8, 8), 16, sigmas=[1.0, 0.1]).eval()
    x, level = torch.rand(3, 1, 8, 8), torch.tensor([1, 0, 1])
    together = torch.func.vmap(lambda x, level: model(x[None], level[None])[0])(x, level)
    torch.testing.assert_close(together, model(x, level), rtol=1e-4, atol=1e-4)
    first, last = model.begin_conv.weight, model.end_conv.weight
    direction = torch.randn_like(last)

    def gradient(weight):
        y = torch.func.functional_call(model, {"end_conv.weight": weight}, (x, level))
        return torch.autograd.grad(y.square().sum(), first, create_graph=True)[0]

    (wanted,) = torch.autograd.grad(gradient(last), last, torch.ones_like(first))
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(gradient(forward_ad.make_dual(last, direction))).tangent
    torch.testing.assert_close(tangent.sum(), (wanted * direction).sum(), rtol=1e-3, atol=1e-3)


def test_steps_in_place_refuse_tangents():
    x, score = image(1), image(2)
    steps = {
        "langevin_step": lambda x: ops.langevin_step(x.clone(), score, 0.1, 0.2, **AT),
        "cld_step": lambda u: ops.cld_step(u.clone(), None, [1, 0, 0, 1], [0, 0], [1, 0, 1], **AT),
        "langevin_table_step": lambda x: ops.langevin_table_step(
            x.clone(), score, torch.zeros(1, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
        ),
    }
    for name, step in steps.items():
        with pytest.raises(ValueError, match=f"{name}: . must be a plain tensor, .* torch.func"):
            torch.func.jvp(step, (x,), (x,))
        assert step(x).isfinite().all()
    near(*(torch.func.jvp(lambda x: reference.langevin_step(x.clone(), score, 0.1, 0.2, **AT), (x,), (x,))[1], x))


def test_what_the_plain_path_refuses():
    def jvp(**options):
        x, v = image(1, torch.float32), image(2, torch.float32)
        return torch.func.jvp(lambda x: ops.instance_norm_plus(x, WEIGHT, **options), (x,), (v,))

    with pytest.raises(ValueError, match="kernel must be 'auto'"):
        jvp(kernel="one-pass")
    for level in (-1, 2):
        with pytest.raises(IndexError):
            jvp(level=torch.tensor([0, level]))
