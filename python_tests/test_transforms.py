"""torch.func and forward-mode derivatives through the ops and networks: right, or refused."""

import pytest
import torch
from torch.autograd import forward_ad

from langevin_ext import models, ops, reference

AT = {"seed": 3, "step": 1}
SIGMA = torch.tensor([0.5, 2.0], dtype=torch.float64)
WEIGHT = torch.randn(2, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
KERNEL = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(2)) / 12
LEVEL = torch.tensor([1, 0])


def image(seed, dtype=torch.float64):
    return torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# (op, dtype); the kernel of conv3x3 is for float32.
OPS = {
    "perturb": (lambda x: ops.perturb(x, SIGMA, **AT), torch.float64),
    "dsm_loss": (lambda x: ops.dsm_loss(x, SIGMA, **AT), torch.float64),
    "instance_norm_plus": (lambda x: ops.instance_norm_plus(x, WEIGHT, LEVEL, elu=True), torch.float64),
    "residual": (lambda x: ops.instance_norm_plus(x, WEIGHT, LEVEL, residual=x.square())[0], torch.float64),
    "upsample_bicubic2x": (lambda x: ops.upsample_bicubic2x(x, sigma=0.3, **AT), torch.float64),
    "conv3x3": (lambda x: ops.conv3x3(x, KERNEL), torch.float32),
}


@pytest.fixture(params=OPS)
def op(request):
    f, dtype = OPS[request.param]
    x, v = image(4, dtype), image(5, dtype)
    y = f(x)
    return f, x, v, y, torch.randn(y.shape, generator=torch.Generator().manual_seed(6), dtype=dtype)


def backward(f, x, pull):
    """The gradient of <pull, f(x)>, by the op's own backward."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad((f(x) * pull).sum(), x)[0]


def near(actual, wanted):
    """Up to the rounding of sums in another order, of F(4x4, 3x3) in float32."""
    tolerance = 1e-10 if wanted.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(actual, wanted, rtol=tolerance, atol=tolerance * wanted.abs().max().item())


def test_tangents_agree_with_gradients(op):
    """<pull, J v> = <J^T pull, v>, by torch.func.jvp and by dual numbers; a tangent that is left out gives 0."""
    f, x, v, y, pull = op
    wanted = (backward(f, x, pull).double() * v.double()).sum()
    value, tangent = torch.func.jvp(f, (x,), (v,))
    near(value, y)
    near((tangent.double() * pull.double()).sum().to(x.dtype), wanted.to(x.dtype))
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


def test_vmap_is_a_loop(op):
    f, x, v, _, _ = op
    near(torch.func.vmap(f)(torch.stack([x, v])), torch.stack([f(x), f(v)]))


def test_compiled_transforms_keep_their_tangents(op):
    f, x, v, _, _ = op
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
        return torch.func.jvp(lambda x: ops.instance_norm_plus(x, WEIGHT, **options), (image(1),), (image(2),))

    with pytest.raises(ValueError, match="kernel must be 'auto'"):
        jvp(kernel="one-pass")
    for level in (-1, 2):
        with pytest.raises(IndexError):
            jvp(level=torch.tensor([0, level]))
