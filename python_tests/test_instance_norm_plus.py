import itertools
import math

import pytest
import torch
from torch.library import opcheck

from langevin_ext import ops, reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
FORMATS = [torch.contiguous_format, torch.channels_last]
# The relative error of one rounding to the dtype; float16 also has an absolute one below its smallest normal.
ROUNDING = {torch.float32: 2.0**-24, torch.float64: 2.0**-53, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
SMALL = [(4, 3, 7, 9), (3, 8, 4, 4), (2, 17, 33, 32)]
# Around the sizes of chunks, blocks and vectors in csrc: 1024 pixels, 128 channels, 32 rows, 4096 elements.
SHAPES = [
    (1, 1, 1, 1),
    (3, 1, 5, 1),
    (2, 2, 1, 1),
    (3, 4, 1, 5),
    (1, 5, 1, 1031),
    (2, 128, 32, 32),
    (1, 3, 64, 64),
    (1, 8, 63, 65),
    (2, 130, 5, 13),
    (1, 1, 300, 301),
    (5, 2, 3, 3),
    (1, 260, 8, 8),
]


def inputs(shape, dtype, layout=torch.contiguous_format, beta=True, levels=4, seed=0):
    """x, residual, weight, level, grad_y, grad_sum"""
    generator = torch.Generator().manual_seed(seed)
    n, c = shape[:2]

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    x = 2 * draw(*shape) + draw(1, c, 1, 1)
    images = [t.to(dtype).contiguous(memory_format=layout) for t in (x, draw(*shape), draw(*shape), draw(*shape))]
    weight = draw(levels, (3 if beta else 2) * c).to(torch.float64 if dtype == torch.float64 else torch.float32)
    level = torch.randint(levels, (n,), generator=generator)
    return images[0], images[1], weight, level, images[2], images[3]


def run(function, x, residual, weight, level, grad_y, grad_sum, **options):
    """Outputs and gradients: y, dx, dweight, then with a residual the sum and dresidual."""
    x, weight = (t.detach().clone().requires_grad_() for t in (x, weight))
    if residual is None:
        y = function(x, weight, level, **options)
        y.backward(grad_y)
        return [y.detach(), x.grad, weight.grad]
    residual = residual.detach().clone().requires_grad_()
    y, total = function(x, weight, level, residual=residual, **options)
    torch.autograd.backward([y, total], [grad_y, grad_sum])
    return [y.detach(), x.grad, weight.grad, total.detach(), residual.grad]


def expected(x, residual, weight, level, grad_y, grad_sum, **options):
    """The same in float64; the sum is first rounded to x's dtype, as specified."""
    if residual is not None:
        residual = (x + residual).double() - x.double()  # exact: the wanted sum comes out again
    images = [None if t is None else t.double() for t in (x, residual, weight)]
    return run(reference.instance_norm_plus, *images, level, grad_y.double(), grad_sum.double(), **options)


def gradient_scale(x, weight, grad_y, eps=1e-5):
    """The largest |gamma r g|: dx is a difference of terms of this size."""
    variance = x.double().var(dim=(2, 3), correction=0)
    gamma = weight[:, : x.shape[1]].abs().max()
    return float((gamma * (variance + eps).rsqrt().max() * grad_y.abs().max()).clamp(min=1))


def check(backend, x, residual, weight, level, grad_y, grad_sum, **options):
    found = run(ops.instance_norm_plus, x, residual, weight, level, grad_y, grad_sum, **options)
    wanted = expected(x, residual, weight, level, grad_y, grad_sum, **options)
    total = x if residual is None else x + residual
    # Statistics and coefficients are good to some roundings of the type that is computed with: 32 of them, of the
    # largest term. The result is rounded once to its dtype, in the reference's gradients each term by itself.
    unit = ROUNDING[torch.float64 if x.dtype == torch.float64 else torch.float32]
    images = [1.0, gradient_scale(total, weight, grad_y), None, 1.0, gradient_scale(total, weight, grad_y)]
    for index, (f, w) in enumerate(zip(found, wanted, strict=True)):
        assert f.shape == w.shape
        assert f.dtype == (weight.dtype if index == 2 else x.dtype)
        scale = max(1.0, float(w.abs().max()), images[index] or 0.0)
        rounding = 0.0 if f.dtype in (torch.float32, torch.float64) else ROUNDING[x.dtype]
        terms = 0.0 if backend == "native" or residual is None else rounding * scale
        torch.testing.assert_close(f.double(), w, rtol=rounding, atol=32 * unit * scale + terms)
        if index != 2:
            assert f.stride() == x.stride()


# algorithms by hand: x, gamma, alpha, beta and y of the authors' formula, of it with ELU, and of the paper's
TABLE_X = [[[1, 2], [3, 4]], [[0, 0], [4, 8]], [[-1, 1], [1, 3]]]
TABLE_WEIGHT = [1, 0.5, 2, 1, -0.5, 0.25, 0.1, 0, -0.2]
TABLE = {
    ("official", False): [
        [-0.92138059, -0.02695698, 0.86746664, 1.76189025],
        [-0.65242608, -0.65242608, -0.04940366, 0.55361875],
        [-3.58886601, -0.76044595, -0.76044595, 2.06797410],
    ],
    ("official", True): [
        [-0.60203077, -0.02659688, 0.86746664, 1.76189025],
        [-0.47921921, -0.47921921, -0.04820315, 0.55361875],
        [-0.97237036, -0.53254208, -0.53254208, 2.06797410],
    ],
    ("paper", False): [
        [-0.92138059, -0.02695698, 0.86746664, 1.76189025],
        [-0.85258535, -0.85258535, -0.24956293, 0.35345948],
        [-3.30864303, -0.48022298, -0.48022298, 2.34819708],
    ],
}


@pytest.mark.parametrize("dtype, atol", [(torch.float64, 6e-9), (torch.float32, 1e-6)])
@pytest.mark.parametrize("form, elu", TABLE)
def test_worked_example(backend, form, elu, dtype, atol):
    x = torch.tensor([TABLE_X], dtype=dtype)
    weight = torch.tensor([TABLE_WEIGHT], dtype=dtype)
    y = ops.instance_norm_plus(x, weight, form=form, elu=elu)
    wanted = torch.tensor(TABLE[form, elu], dtype=dtype).view(1, 3, 2, 2)
    torch.testing.assert_close(y, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_every_option_against_float64(backend, dtype, layout):
    options = itertools.product(["official", "paper"], [False, True], [False, True], [False, True], [False, True])
    for i, (form, elu, beta, with_residual, conditional) in enumerate(options):
        x, residual, weight, level, *grads = inputs(SMALL[i % 3], dtype, layout, beta, seed=i)
        check(
            backend,
            x,
            residual if with_residual else None,
            weight,
            level if conditional else None,
            *grads,
            form=form,
            elu=elu,
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_against_float64(backend, shape, dtype, layout):
    x, residual, *rest = inputs(shape, dtype, layout)
    check(backend, x, None, *rest, elu=True)
    check(backend, x, residual, *rest)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 32, 33), (2, 40, 17, 16)], ids=str)
def test_small_variance_around_a_large_mean(backend, shape, layout):
    # Mean 1000, deviation 1: the mean is rounded to float32, by up to 2^-15 of a deviation, and all that follows by
    # little. torch's mean may be off by some roundings more. E[x^2] - mu^2 would have the variance off by
    # 1000^2 2^-24 = 6 % and y by 3 %.
    x, _, weight, *_ = inputs(shape, torch.float32, layout)
    x = 1000 + torch.randn(shape, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=layout)
    gamma, alpha, beta = weight.view(4, 3, -1).unbind(1)
    alpha.zero_()
    wanted = reference.instance_norm_plus(x.double(), weight.double())
    bound = float(gamma[0].abs().max()) * 1.1 * 2**-15 + 2e-6
    y = ops.instance_norm_plus(x, weight)
    assert float((y - wanted).abs().max()) < bound * (1 if backend == "native" else 8)


@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (1, 17, 40, 40), (2, 1, 5, 5), (2, 6, 1, 1)], ids=str)
@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_a_constant_becomes_beta(backend, shape, layout):
    _, _, weight, level, *_ = inputs(shape, torch.float32)
    x = torch.full(shape, 0.1).contiguous(memory_format=layout)
    y = ops.instance_norm_plus(x, weight, level)
    beta = weight[level][:, 2 * shape[1] :, None, None].expand(shape)
    # Native sums correct their mean, so that nothing is left of x - mu; torch's mean may be off by one rounding.
    torch.testing.assert_close(y, beta, rtol=0, atol=0 if backend == "native" else 0.1 * 2**-23 * 1e5**0.5 * 20)


def test_one_channel_has_no_alpha_term(backend):
    x, _, weight, level, *_ = inputs((3, 1, 4, 4), torch.float64)
    y = ops.instance_norm_plus(x, weight, level)
    gamma, _, beta = weight[level].unbind(1)
    wanted = torch.nn.functional.instance_norm(x) * gamma.view(-1, 1, 1, 1) + beta.view(-1, 1, 1, 1)
    torch.testing.assert_close(y, wanted)


def test_elu_and_its_slope_to_two_units_in_the_last_place():
    # One pixel of value 0 and alpha = 0 leave y = elu(beta): the channels sweep the function.
    t = torch.cat([torch.linspace(-90, 3, 20001), torch.linspace(-0.4, 0.4, 20001), -torch.logspace(-30, -1, 2000)])
    c = len(t)
    weight = torch.cat([torch.ones(c), torch.zeros(c), t])[None].requires_grad_()
    y = ops.instance_norm_plus(torch.zeros(1, c, 1, 1), weight, elu=True).flatten()
    y.sum().backward()
    exact = t.double()
    unit = 2.0**-23
    torch.testing.assert_close(y.double(), torch.where(t > 0, exact, torch.expm1(exact)), rtol=2 * unit, atol=0)
    slope = torch.where(t > 0, torch.ones_like(exact), exact.exp())
    found = weight.grad[0, 2 * c :].double()
    inside = t > -87  # below, e^t is cut off at e^-87
    torch.testing.assert_close(found[inside], slope[inside], rtol=2 * unit, atol=0)
    torch.testing.assert_close(found[~inside], slope[~inside], rtol=0, atol=2e-38)


def test_one_pixel_has_exactly_no_gradient_but_through_its_mean():
    x, _, weight, level, grad_y, grad_sum = inputs((3, 4, 1, 1), torch.float32)
    weight[:, 4:8] = 0.0  # alpha
    assert not run(ops.instance_norm_plus, x, None, weight, level, grad_y, grad_sum, elu=True)[1].any()


@pytest.mark.parametrize("elu", [False, True])
def test_nan_and_infinity_stay_in_their_sample(backend, elu):
    x, _, weight, level, *_ = inputs((4, 3, 5, 5), torch.float32)
    clean = ops.instance_norm_plus(x, weight, level, elu=elu)
    x[1, 0, 2, 2], x[2, 1, 0, 0] = math.nan, math.inf
    y = ops.instance_norm_plus(x, weight, level, elu=elu)
    assert torch.equal(y[[0, 3]], clean[[0, 3]])
    assert y[1].isnan().all() and y[2].isnan().all()


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(7, 20, 31, 33), (1, 200, 32, 32), (2, 5, 120, 120)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_threads_do_not_change_a_bit(shape, dtype, layout):
    arguments = inputs(shape, dtype, layout)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(run(ops.instance_norm_plus, *arguments, elu=True))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sample_does_not_see_the_batch(dtype, layout):
    x, residual, weight, level, grad_y, grad_sum = inputs((5, 12, 40, 40), dtype, layout)
    whole = run(ops.instance_norm_plus, x, residual, weight, level, grad_y, grad_sum, elu=True)
    for part in (slice(0, 1), slice(1, 4), slice(4, 5)):
        one = run(
            ops.instance_norm_plus, x[part], residual[part], weight, level[part], grad_y[part], grad_sum[part], elu=True
        )
        for index in (0, 1, 3, 4):
            assert torch.equal(one[index], whole[index][part])


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("shape, with_residual", [((41, 3, 261, 263), True), ((20, 130, 57, 58), False)], ids=str)
def test_outputs_past_the_caches_are_the_same(shape, with_residual, layout):
    """From 32 MiB on they are written by other instructions: in whole cache lines, where rows begin anywhere."""
    x, residual, weight, level, *_ = inputs(shape, torch.float32, layout)
    residual = residual if with_residual else None
    assert x.numel() * 4 > 2**25
    together = ops.instance_norm_plus(x, weight, level, elu=True, residual=residual)
    for piece in (slice(0, 1), slice(1, 7), slice(7, shape[0] // 2)):  # each below
        part = None if residual is None else residual[piece]
        alone = ops.instance_norm_plus(x[piece], weight, level[piece], elu=True, residual=part)
        if residual is None:
            assert torch.equal(together[piece], alone)
        else:
            assert torch.equal(together[0][piece], alone[0]) and torch.equal(together[1][piece], alone[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_strides(backend, dtype):
    x, residual, weight, level, grad_y, grad_sum = inputs((2, 6, 8, 10), dtype)
    wanted = run(ops.instance_norm_plus, x, residual, weight, level, grad_y, grad_sum, elu=True)
    gaps = torch.zeros(2, 12, 8, 20, dtype=dtype)[:, ::2, :, ::2].copy_(x)
    mixed = [
        gaps,
        residual.contiguous(memory_format=torch.channels_last),
        weight.t().contiguous().t(),
        level,
        grad_y.transpose(2, 3).contiguous().transpose(2, 3),
        grad_sum,
    ]
    for a, b in zip(run(ops.instance_norm_plus, *mixed, elu=True), wanted, strict=True):
        torch.testing.assert_close(a, b)
    y = ops.instance_norm_plus(x.requires_grad_(), weight)
    y.backward(torch.ones((), dtype=dtype).expand(y.shape))  # what y.sum() sends back
    assert x.grad is not None


def test_weight_in_the_dtype_of_x(backend):
    x, _, weight, level, grad_y, grad_sum = inputs((2, 4, 5, 5), torch.bfloat16)
    low = weight.bfloat16()
    found = run(ops.instance_norm_plus, x, None, low, level, grad_y, grad_sum)
    wanted = run(ops.instance_norm_plus, x, None, low.float(), level, grad_y, grad_sum)
    assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])
    assert torch.equal(found[2], wanted[2].bfloat16())


GRADCHECK = [
    ("official", False, False, True, True),
    ("official", True, True, True, True),
    ("official", True, True, False, False),
    ("paper", True, False, True, False),
    ("paper", False, True, False, True),
]


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("form, elu, with_residual, conditional, beta", GRADCHECK)
def test_gradcheck(backend, form, elu, with_residual, conditional, beta, layout):
    x, residual, weight, *_ = inputs((3, 3, 2, 3), torch.float64, layout, beta, levels=2)
    level = torch.tensor([1, 0, 1]) if conditional else None

    def function(x, weight, residual):
        return ops.instance_norm_plus(
            x, weight, level, form=form, elu=elu, eps=0.1, residual=residual if with_residual else None
        )

    arguments = [t.requires_grad_() for t in (x, weight, residual)]
    if not with_residual:
        arguments[2] = None
    assert torch.autograd.gradcheck(function, arguments)
    assert torch.autograd.gradgradcheck(function, arguments)


def test_second_derivative_of_a_weight_made_from_x(backend):
    x = inputs((1, 2, 2, 2), torch.float64)[0].requires_grad_()

    def function(x):
        return ops.instance_norm_plus(x, x.flatten(1)[:, :6].sin(), elu=True)

    assert torch.autograd.gradcheck(function, [x])
    assert torch.autograd.gradgradcheck(function, [x])


def test_gradients_of_some_inputs_and_outputs(backend):
    x, residual, weight, level, grad_y, grad_sum = inputs((3, 4, 5, 6), torch.float64)
    _, grad_x, grad_weight, _, grad_residual = run(ops.instance_norm_plus, x, residual, weight, level, grad_y, grad_sum)
    for needed in itertools.product([False, True], repeat=3):
        if not any(needed):
            continue
        leaves = [t.detach().clone().requires_grad_(n) for t, n in zip((x, residual, weight), needed, strict=True)]
        y, total = ops.instance_norm_plus(leaves[0], leaves[2], level, residual=leaves[1])
        roots = [(y, grad_y)] + ([(total, grad_sum)] if total.requires_grad else [])
        torch.autograd.backward(*map(list, zip(*roots, strict=True)))
        sum_lost = 0 if total.requires_grad else grad_sum
        for leaf, need, wanted in zip(
            leaves, needed, (grad_x - sum_lost, grad_residual - sum_lost, grad_weight), strict=True
        ):
            assert (leaf.grad is not None) == need
            if need:
                torch.testing.assert_close(leaf.grad, wanted)
    a, b = x.clone().requires_grad_(), residual.clone().requires_grad_()
    ops.instance_norm_plus(a, weight, residual=b)[1].backward(grad_sum)
    assert torch.equal(a.grad, grad_sum) and torch.equal(b.grad, grad_sum)


def test_weight_gradient_of_absent_levels_is_zero(backend):
    x, _, weight, _, grad_y, grad_sum = inputs((3, 4, 5, 5), torch.float32, levels=6)
    grad = run(ops.instance_norm_plus, x, None, weight, torch.tensor([4, 1, 4]), grad_y, grad_sum)[2]
    assert grad[[0, 2, 3, 5]].abs().max() == 0 and (grad[[1, 4]].abs().sum(1) > 0).all()


def test_empty_batch(backend):
    weight = torch.ones(2, 9, requires_grad=True)
    x = torch.empty(0, 3, 4, 4, requires_grad=True)
    y, total = ops.instance_norm_plus(x, weight, torch.empty(0, dtype=torch.int64), residual=x)
    assert y.shape == total.shape == x.shape
    y.sum().backward()
    assert x.grad.shape == x.shape and torch.equal(weight.grad, torch.zeros(2, 9))


def test_inference_mode(backend):
    x, residual, weight, level, *_ = inputs((2, 4, 5, 6), torch.float32)
    wanted = ops.instance_norm_plus(x, weight, level, residual=residual)
    with torch.inference_mode():
        for a, b in zip(ops.instance_norm_plus(x, weight, level, residual=residual), wanted, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_opcheck(backend, requires_grad, layout):
    x, residual, weight, level, grad_y, grad_sum = inputs((2, 3, 4, 5), torch.float32, layout)
    leaves = [t.requires_grad_(requires_grad) for t in (x, residual, weight)]
    op = torch.ops.langevin_ext.instance_norm_plus.default
    opcheck(op, (*leaves, level, False, 1e-5, True))
    opcheck(op, (leaves[0], None, leaves[2], None, True, 1e-5, False))
    stats = op(x, residual, weight, level, False, 1e-5, True)[2]
    grad_y, grad_sum = (t.requires_grad_(requires_grad) for t in (grad_y, grad_sum))
    backward = torch.ops.langevin_ext.instance_norm_plus_backward.default
    # Nothing compiles second derivatives, and their trace with symbolic shapes takes some seconds.
    checks = {"test_utils": ["test_schema", "test_autograd_registration", "test_faketensor"]} if requires_grad else {}
    opcheck(backward, (grad_y, grad_sum, x, weight, level, stats, False, 1e-5, True, True, True), **checks)
    opcheck(backward, (grad_y, None, x, weight, None, stats, False, 1e-5, True, False, True), **checks)
    opcheck(backward, (grad_y, None, x, weight, None, stats, False, 1e-5, True, True, False), **checks)


def test_compiles_whole(backend):
    x, residual, weight, level, grad_y, grad_sum = inputs((2, 5, 6, 7), torch.float32, torch.channels_last)

    def block(x, weight, level, residual):
        y, total = ops.instance_norm_plus(x, weight, level, elu=True, residual=residual)
        return ops.instance_norm_plus(y, weight, level), total

    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    for a, b in zip(
        run(compiled, x, residual, weight, level, grad_y, grad_sum),
        run(block, x, residual, weight, level, grad_y, grad_sum),
        strict=True,
    ):
        assert torch.equal(a, b)


X, W = torch.zeros(2, 3, 4, 4), torch.zeros(5, 9)
ERRORS = [
    (TypeError, "x must be a tensor, got list", {"x": [1.0]}),
    (TypeError, "x must be float32, float64, bfloat16, float16, got int64", {"x": X.long()}),
    (ValueError, "x must have shape (samples, C, H, W) with C >= 1, got (2, 3, 4)", {"x": X[:, :, 0]}),
    (TypeError, "weight must be a tensor, got NoneType", {"weight": None}),
    (TypeError, "weight must be float32, got float64", {"weight": W.double()}),
    (TypeError, "weight must be float32, bfloat16, got float16", {"x": X.bfloat16(), "weight": W.half()}),
    (
        ValueError,
        "weight must have shape (levels, 9), or (levels, 6) without beta, to go with x, got (5, 8)",
        {"weight": W[:, :8]},
    ),
    (
        ValueError,
        "weight must have shape (levels, 9), or (levels, 6) without beta, to go with x, got (0, 9)",
        {"weight": W[:0]},
    ),
    (ValueError, "weight must be on x's device cpu, got meta", {"weight": W.to("meta")}),
    (TypeError, "level must be int64, got int32", {"level": torch.zeros(2, dtype=torch.int32)}),
    (ValueError, "level must have shape (2,) to go with x, got (3,)", {"level": torch.zeros(3, dtype=torch.int64)}),
    (ValueError, "level must be in [0, 5), got 5", {"level": torch.tensor([0, 5])}),
    (ValueError, "level must be in [0, 5), got -1", {"level": torch.tensor([-1, 2])}),
    (ValueError, "form must be 'official' or 'paper', got 'Paper'", {"form": "Paper"}),
    (ValueError, "eps must be finite and > 0, got 0.0", {"eps": 0.0}),
    (TypeError, "residual must be float32, got bfloat16", {"residual": X.bfloat16()}),
    (
        ValueError,
        "residual must have shape (2, 3, 4, 4) to go with x, got (2, 3, 4, 5)",
        {"residual": torch.zeros(2, 3, 4, 5)},
    ),
]


@pytest.mark.parametrize("error, message, change", ERRORS, ids=[e[1] for e in ERRORS])
def test_errors(backend, error, message, change):
    with pytest.raises(error) as caught:
        ops.instance_norm_plus(**({"x": X, "weight": W} | change))
    assert str(caught.value) == f"instance_norm_plus: {message}"
