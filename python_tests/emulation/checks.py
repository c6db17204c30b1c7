"""What each op must do on the emulated kernels: raises where it does not. A case of `cases` holds the arguments."""

from functools import partial
from unittest import mock

import torch

from langevin_ext import ops, reference
from langevin_ext.ops import norm_forms

from .harness import same_bits

SEED = 0x1234_5678_9ABC_DEF0
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


def tensor(shape, layout="contiguous", dtype=F32, seed=0, scale=1.0, mean=0.0):
    """Normals in a memory layout: contiguous, channels_last, or unaligned: contiguous but one element off."""
    values = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale + mean).to(dtype)
    if layout == "channels_last":
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "unaligned":
        return torch.cat([values.new_zeros(1), values.flatten()])[1:].view(shape)
    return values


def where(**coordinates):
    return {"seed": SEED, "step": 7, "first": 5, "stream": 3, **coordinates}


def check_noise(emulation, shape, first=5):
    for op in (ops.philox_words, ops.philox_normal):
        (result,) = emulation.run(lambda op=op: [op(shape, **where(first=first))])
        assert same_bits(result, op(shape, **where(first=first))), op.__name__


def check_langevin_step(emulation, shape, dtype=F32, x_layout="contiguous", score_layout="contiguous", mask=None):
    score = tensor(shape, score_layout, dtype, seed=1)
    known = None if mask is None else tensor(shape if mask == "batch" else shape[1:], seed=2) > 0

    def step():
        x = tensor(shape, x_layout)
        return [ops.langevin_step(x, score, 0.3, 0.7, mask=known, **where())]

    (result,) = emulation.run(step)
    assert same_bits(result, step()[0])


TABLE = torch.tensor([[0.3, 0.7, 7.0, 2.0], [-0.1, 0.0, 0.0, 0.0], [1e-5, 2.0, 2.0**32 - 1, 9.0]], dtype=torch.float64)


def check_langevin_table_step(
    emulation, shape, row=0, dtype=F32, x_layout="contiguous", score_layout="contiguous", mask=None
):
    score, place = tensor(shape, score_layout, dtype, seed=1), torch.tensor([row, SEED - 2**63, 5])
    known = None if mask is None else tensor(shape if mask == "batch" else shape[1:], seed=2) > 0

    def step():
        return [ops.langevin_table_step(tensor(shape, x_layout), score, TABLE, place, stream=3, mask=known)]

    (result,) = emulation.run(step)
    if not 0 <= row < len(TABLE):
        free = torch.ones(shape, dtype=torch.bool) if known is None else ~known.expand(shape)
        assert result[free].isnan().all() and same_bits(result[~free], tensor(shape, x_layout)[~free])
        return
    score_coef, noise_coef, number, _ = TABLE[row].tolist()
    coordinates = where(seed=SEED + 2**63, step=int(number))
    expected = ops.langevin_step(tensor(shape, x_layout), score, score_coef, noise_coef, mask=known, **coordinates)
    assert same_bits(result, expected)


def check_advance_row(emulation, samples, row):
    def advance():
        place, level = torch.tensor([row, 11, 12]), torch.full((samples,), 77)
        ops.advance_row(place, TABLE, level)
        return [place, level]

    place, level = emulation.run(advance)
    assert place.tolist() == [row + 1, 11, 12]
    assert level.tolist() == [int(TABLE[row + 1, 3]) if 0 <= row + 1 < len(TABLE) else -1] * samples


def check_cld_step(emulation, shape, layout="contiguous", score_layout="contiguous", noise=(0.3, -0.2, 0.5)):
    score = None if score_layout is None else tensor(shape, score_layout, seed=1)
    b = (0.0, 0.0) if score is None else (-0.1, 0.7)

    def step():
        u = tensor((shape[0], 2 * shape[1], *shape[2:]), layout)
        return [ops.cld_step(u, score, (0.9, -0.3, 0.2, 1.4), b, noise, seed=SEED, step=7, first=5)]

    (result,) = emulation.run(step)
    assert same_bits(result, step()[0])


def check_perturb(emulation, shape, dtype=F32, layout="contiguous"):
    x, sigma = tensor(shape, layout, dtype), tensor(shape[:1], seed=1).abs() + 0.1
    (result,) = emulation.run(lambda: [ops.perturb(x, sigma, **where())])
    assert same_bits(result, ops.perturb(x, sigma, **where()))


def check_dsm_loss(emulation, shape, dtype=F32, layout="contiguous", anneal_power=2.0):
    sigma, weight = tensor(shape[:1], seed=1).abs() + 0.1, tensor(shape[:1], seed=2)

    def loss_and_grad(function=ops.dsm_loss, as_dtype=dtype):
        score = tensor(shape, layout, dtype).to(as_dtype).requires_grad_()
        loss = function(
            score, sigma.to(torch.float64 if as_dtype == torch.float64 else F32), anneal_power=anneal_power, **where()
        )
        return loss.detach(), *torch.autograd.grad(loss @ weight.to(loss.dtype), score)

    loss, grad = emulation.run(loss_and_grad)
    exact_loss, exact_grad = loss_and_grad(reference.dsm_loss, torch.float64)
    torch.testing.assert_close(loss, exact_loss.to(loss.dtype), rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(grad, exact_grad.to(dtype))
    assert same_bits(loss, loss_and_grad()[0]), "the loss differs from the CPU's"


def check_instance_norm_plus(emulation, gradients=False, **case):
    """Values, or gradients, against the reference in float64."""
    if case.keys() & {"bias", "pool"}:
        return check_launched_norm(emulation, [0], **case)
    results = emulation.run(lambda: norm(ops.instance_norm_plus, gradients, **case))
    exact = norm(reference.instance_norm_plus, gradients, as_dtype=torch.float64, **case)
    for result, wanted in zip(results, exact, strict=True):
        assert_near(result, wanted, case.get("dtype", F32))
    if case.get("residual") and not gradients:
        assert_same_in_place(emulation, 0, results, **case)


def assert_same_in_place(emulation, blocks, results, **case):
    """The same bits with the sum over x, as the engine wants them."""

    def run(x, weight, level, *, form, elu, residual):
        stats, scratch = norm_forms.room_for_stats(x), torch.empty(emulation.core.instance_norm_plus_scratch(x, False))
        images, table = (x, norm_forms.like(residual, x), x, torch.empty_like(x)), (weight, level, stats)
        norm_forms.launch(emulation.core, blocks, images, table, scratch, (form == "paper", 1e-5, elu))
        return [images[3], x, stats]

    for result, wanted in zip(emulation.run(lambda: norm(run, False, **case)), results, strict=False):
        assert same_bits(result, wanted), "the sum in the place of x gives other values"


def assert_near(result, wanted, dtype):
    """Within the rounding of dtype, relative to the largest value."""
    bound, size = {F32: 1e-5, BF16: 2.0**-7, F16: 2.0**-10}[dtype], max(wanted.abs().max().item(), 1e-3)
    torch.testing.assert_close(result.double(), wanted, rtol=bound, atol=bound * size)


def check_instance_norm_plus_backward(emulation, **case):
    check_instance_norm_plus(emulation, gradients=True, **case)


def check_instance_norm_plus_cluster(emulation, blocks=0, **case):
    """The one-pass form: its values against the reference, and all that it writes against the two-kernel form."""

    def run(blocks_or_two_kernels):
        with mock.patch.object(norm_forms, "blocks_for", lambda *_: blocks_or_two_kernels):
            return emulation.run(lambda: norm(raw_norm, False, **case))

    usual = emulation.core.instance_norm_plus_cluster_plan(
        tensor(case["shape"], "channels_last", case.get("dtype", F32)), norm_limit(emulation), blocks
    )
    assert usual[0], usual
    if case.keys() & {"bias", "pool"}:
        return check_launched_norm(emulation, [0, usual[0]], **case)
    one, two = run(usual[0]), run(0)
    for result, wanted in zip(one, two, strict=True):
        assert same_bits(result, wanted), "the one-pass form differs from the two-kernel form"
    exact = norm(reference.instance_norm_plus, False, as_dtype=torch.float64, **case)
    for result, wanted in zip(one[: len(exact)], exact, strict=True):
        assert_near(result, wanted, case.get("dtype", F32))
    if case.get("residual"):
        assert_same_in_place(emulation, usual[0], one, **case)


def check_launched_norm(emulation, forms, bias=False, pool=False, **case):
    """What the op does not offer, in these forms: with a bias, the sum over x as in an engine, or pooled."""
    first, *others = (
        emulation.run(lambda blocks=blocks: norm(partial(launched_norm, emulation.core, blocks, bias, pool), **case))
        for blocks in forms
    )
    for results in others:
        for result, wanted in zip(results, first, strict=True):
            assert same_bits(result, wanted), "the one-pass form differs from the two-kernel form"
    exact = norm(partial(plain_norm, bias, pool), as_dtype=torch.float64, **case)
    for result, wanted in zip(first[: len(exact)], exact, strict=True):
        assert_near(result, wanted, case.get("dtype", F32))


def launched_norm(core, blocks, bias, pool, x, weight, level, *, form, elu, residual):
    """Outputs, means of the channels and all statistics."""
    stats, scratch = norm_forms.room_for_stats(x), torch.empty(core.instance_norm_plus_scratch(x, False))
    total = None if residual is None else torch.empty_like(x) if pool else x
    images = x, norm_forms.like(residual, x), total, torch.empty_like(x)
    extra = {"bias": bias_of(x, torch.float32) if bias else None, "pool": pool}
    norm_forms.launch(core, blocks, images, (weight, level, stats), scratch, (form == "paper", 1e-5, elu), **extra)
    means = stats[:, : x.shape[1]].contiguous()
    return [images[3], means, stats] if residual is None else [images[3], means, total, stats]


def plain_norm(bias, pool, x, weight, level, *, form, elu, residual):
    """Outputs and means of the channels of what is stored."""
    shift = bias_of(x, x.dtype)[:, None, None] if bias else 0
    total = x + shift if residual is None else x + residual + shift
    y = reference.instance_norm_plus(total, weight, level, form=form, elu=elu)
    y = torch.nn.functional.avg_pool2d(y, 5, stride=1, padding=2) if pool else y
    return [y, x.mean((2, 3))] if residual is None else [y, total.mean((2, 3)), total]


def bias_of(x, dtype):
    return tensor(x.shape[1:2], seed=5, scale=3.0).to(dtype)


def norm_limit(emulation):
    return emulation.core.instance_norm_plus_cluster_limit(torch.zeros(1))


def raw_norm(x, weight, level, *, form, elu, residual):
    """The op with its statistics, as the last of its outputs."""
    y, total, stats = torch.ops.langevin_ext.instance_norm_plus(
        x, residual, weight, level, form == "paper", 1e-5, elu, "auto"
    )
    return [y, stats] if residual is None else [y, total, stats]


def norm(
    function,
    gradients=False,
    shape=None,
    dtype=F32,
    layout="contiguous",
    levels=3,
    beta=True,
    form="official",
    elu=False,
    residual=None,
    scale=1.0,
    as_dtype=None,
):
    """The outputs, or the gradients of a fixed combination of them; computed in as_dtype on the values of dtype."""
    as_dtype, weight_dtype = as_dtype or dtype, as_dtype or F32
    level = None if levels is None else torch.arange(shape[0]).flip(0) % levels
    x = tensor(shape, layout, dtype, scale=scale, mean=2 * scale).to(as_dtype).requires_grad_(gradients)
    weight = tensor((levels or 1, (3 if beta else 2) * shape[1]), seed=1).to(weight_dtype).requires_grad_(gradients)
    inputs, other = [x, weight], None
    if residual is not None:
        other = tensor(shape, residual, dtype, seed=3).to(as_dtype).requires_grad_(gradients)
        inputs.append(other)
    outputs = function(x, weight, level, form=form, elu=elu, residual=other)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    if not gradients:
        return outputs
    pulls = [tensor(shape, layout, dtype, seed=4 + i).to(as_dtype) for i in range(len(outputs))]
    return torch.autograd.grad(outputs, inputs, pulls)


def check_upsample_bicubic2x(emulation, shape, layout="contiguous", sigma=0.0, a=-0.75, input_dtype=None):
    x = tensor(shape, layout)

    def upsampled():
        result = ops.upsample_bicubic2x(x, a=a, sigma=sigma, input_dtype=input_dtype, **where())
        return [result] if input_dtype is None else list(result)

    for result, wanted in zip(emulation.run(upsampled), upsampled(), strict=True):
        assert result.stride() == wanted.stride() and same_bits(result, wanted)


def check(op, emulation, **case):
    globals()[f"check_{op}"](emulation, **case)
