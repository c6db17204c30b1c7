"""The one-pass form of instance_norm_plus: its launch plan, the choice between the forms, and the kernel on a GPU."""

import pytest
import test_instance_norm_plus as cpu
import torch
from emulation.harness import same_bits

from langevin_ext import _native, ops
from langevin_ext.ops import norm_forms

pytestmark = pytest.mark.skipif(_native._core is None, reason="the native core is not installed")
LIMIT = 227 * 1024  # bytes of shared memory that a block may have on sm_90
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


def plan(*shape, dtype=F16, limit=LIMIT, blocks=0, channels_last=True):
    form = torch.channels_last if channels_last else torch.contiguous_format
    return _native._core.instance_norm_plus_cluster_plan(
        torch.empty((1, *shape), dtype=dtype, memory_format=form), limit, blocks
    )


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    monkeypatch.setattr(norm_forms, "_chosen", {})


# --- the launch plan ---
@pytest.mark.parametrize(
    ("shape", "dtype", "blocks", "slab"),
    [
        ((128, 32, 32), F16, 4, 64),
        ((256, 16, 16), F16, 2, 64),
        ((128, 16, 16), F16, 1, 64),
        ((128, 64, 64), F16, 8, 128),
        ((256, 32, 32), F16, 8, 64),
        ((128, 64, 64), BF16, 8, 128),
        ((256, 16, 16), F32, 4, 64),
        ((128, 32, 32), F32, 8, 64),
        ((256, 32, 32), F32, 8, 128),
    ],
)
def test_plan_of_the_networks_norms(shape, dtype, blocks, slab):
    found = plan(*shape, dtype=dtype)
    assert found[0] == blocks and found[3] == slab * 1024 and found[5] == ""


@pytest.mark.parametrize("dtype", [F16, F32], ids=str)
@pytest.mark.parametrize(
    "shape", [(8, 1, 1), (8, 10, 10), (48, 19, 20), (96, 21, 17), (512, 12, 12), (1024, 8, 8), (128, 33, 31)], ids=str
)
@pytest.mark.parametrize("blocks", norm_forms.CLUSTERS)
def test_plans_cover_the_sample_and_fit(shape, dtype, blocks):
    channels, pixels, size = shape[0], shape[1] * shape[2], dtype.itemsize
    found, chunks, threads, slab, shared, why_not = plan(*shape, dtype=dtype, blocks=blocks)
    if why_not:
        assert (found, chunks, threads, slab, shared) == (0, 0, 0, 0, 0)
        return
    of_chunk = max(-(-16384 // channels), -(-pixels // 16))
    of_chunk = -(-of_chunk // 8) * 8
    count = -(-pixels // of_chunk)
    assert found == blocks and (blocks - 1) * chunks < count <= blocks * chunks
    assert slab == min(chunks * of_chunk, pixels) * channels * size and slab % 16 == 0
    groups = 2 if chunks > 1 else 1
    rows = 256 // (channels * size // 16)
    assert threads == 256 * groups
    assert shared == slab + 4 * ((2 * chunks + 3) * channels + groups * 2 * max(rows * channels, 256)) <= LIMIT


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"channels_last": False}, "channels-last"),
        ({"dtype": torch.float64}, "float32, bfloat16 and float16"),
        ({"shape": (12, 8, 8)}, "vectors of 16 bytes"),
        ({"shape": (1032, 8, 8)}, "too many channels"),
        ({"blocks": 3}, "1, 2, 4 or 8"),
        ({"blocks": 16}, "1, 2, 4 or 8"),
        ({"shape": (8, 10, 10), "blocks": 2}, "too few pixels"),
        ({"shape": (128, 64, 64), "dtype": F32}, "does not fit"),
        ({"shape": (128, 64, 64), "limit": 99 * 1024}, "does not fit"),
        ({"shape": (128, 32, 32), "blocks": 1}, "does not fit"),
    ],
)
def test_a_plan_that_there_is_none_for_says_why(arguments, reason):
    arguments = {"shape": (128, 32, 32), **arguments}
    found = plan(*arguments.pop("shape"), **arguments)
    assert found[:5] == (0, 0, 0, 0, 0) and reason in found[5]


# --- which form runs ---
def features(shape, dtype=F16, device="cpu", channels_last=True):
    generator = torch.Generator().manual_seed(1)
    x, residual = (torch.randn(shape, generator=generator).add(0.5).to(device, dtype) for _ in range(2))
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(2, 3 * shape[1], generator=generator).to(device)
    return x, weight, torch.arange(shape[0], device=device) % 2, residual


def test_one_pass_where_it_does_not_run(backend):
    x, weight, level, _ = features((2, 8, 4, 4))
    with pytest.raises(ValueError, match="instance_norm_plus: kernel must be 'auto' .*, got 'one-pass'"):
        ops.instance_norm_plus(x, weight, level, kernel="one-pass")
    with pytest.raises(ValueError, match="'auto', 'two-kernel' or 'one-pass', got 'fast'"):
        ops.instance_norm_plus(x, weight, level, kernel="fast")
    same = [ops.instance_norm_plus(x, weight, level, kernel=kernel) for kernel in ("auto", "two-kernel")]
    assert torch.equal(*same)


def test_one_pass_that_does_not_apply(emulated):
    x, weight, level, residual = features((2, 8, 4, 4), channels_last=False)
    with pytest.raises(ValueError, match="got 'one-pass': the one-pass form is for channels-last"):
        ops.instance_norm_plus(x, weight, level, kernel="one-pass")
    x = x.contiguous(memory_format=torch.channels_last)
    shifted = torch.cat([x.new_zeros(1), x.permute(0, 2, 3, 1).flatten()])[1:].view(2, 4, 4, 8).permute(0, 3, 1, 2)
    with pytest.raises(ValueError, match="got 'one-pass': x is not aligned"):
        ops.instance_norm_plus(shifted, weight, level, kernel="one-pass")


def test_one_pass_gives_the_gradients_of_two_kernels(emulated):
    grads = {}
    for kernel in ("one-pass", "two-kernel"):
        x, weight, level, residual = features((3, 16, 9, 7), F32)
        inputs = [t.requires_grad_() for t in (x, weight, residual)]
        y, total = ops.instance_norm_plus(*inputs[:2], level, elu=True, residual=inputs[2], kernel=kernel)
        grads[kernel] = torch.autograd.grad(y.square().sum() + total.sum(), inputs)
    called = emulated.core.calls
    assert "instance_norm_plus_cluster" in called and "instance_norm_plus" in called
    assert all(same_bits(*pair) for pair in zip(*grads.values(), strict=True))


def test_choose_norm_keeps_the_fastest_form(emulated, monkeypatch):
    seconds = {False: [3e-6, 1e-6, 2e-6], True: [3e-6, 4e-6, 2e-6]}  # two kernels, 1 block, 2 blocks
    monkeypatch.setattr(norm_forms, "_median_seconds", lambda calls, device: pop(calls))

    def pop(calls):
        assert len(calls) == 3
        for call in calls:
            call()
        return seconds.pop(min(seconds))

    shape = (2, 48, 20, 20)
    times = norm_forms.choose_norm(shape, F16, "cpu")
    names = ["two-kernel", "one-pass, 1 block", "one-pass, 2 blocks"]
    assert list(times) == [(name, with_sum) for with_sum in (False, True) for name in names]
    assert times["one-pass, 2 blocks", True] == 2e-6

    def called(kernel="auto", residual=None, samples=2, channels_last=True):
        emulated.core.calls.clear()
        x, weight, level, _ = features((samples, *shape[1:]), channels_last=channels_last)
        ops.instance_norm_plus(x, weight, level, residual=residual, kernel=kernel)
        return emulated.core.calls[-1]

    one_pass, two_kernels = "instance_norm_plus_cluster", "instance_norm_plus"
    assert called() == one_pass and called("two-kernel") == two_kernels
    # What was not measured runs two kernels.
    assert called(samples=1) == two_kernels and called(channels_last=False) == two_kernels
    chosen = norm_forms._chosen
    assert list(chosen.values()) == [1, 2]
    x, *_, residual = features(shape)
    assert norm_forms.blocks_for(emulated.core, x, residual, "auto") == 2
    assert norm_forms.chosen(x, True) == 2 and norm_forms.chosen(x, True, pool=True) == 0


def test_clusters_do_not_pool(emulated):
    x, weight, level, _ = features((2, 8, 8, 8))
    images, table = (x, None, None, torch.empty_like(x)), (weight, level, norm_forms.room_for_stats(x))
    with pytest.raises(ValueError, match="instance_norm_plus: blocks must be 0 with pool, .* got 2"):
        norm_forms.launch(emulated.core, 2, images, table, None, (False, 1e-5, False), pool=True)


def test_choose_norm_where_there_is_nothing_to_choose(backend):
    assert norm_forms.choose_norm((2, 8, 4, 4), F32, "cpu") == {} and norm_forms._chosen == {}


def test_choose_norm_checks_its_arguments():
    with pytest.raises(ValueError, match="choose_norm: shape must be .* got \\(2, 8, 4\\)"):
        norm_forms.choose_norm((2, 8, 4), F32, "cpu")
    with pytest.raises(ValueError, match="choose_norm: shape must be .* got \\(2, 8, 0, 4\\)"):
        norm_forms.choose_norm((2, 8, 0, 4), F32, "cpu")
    with pytest.raises(TypeError, match="choose_norm: dtype must be float32, bfloat16, float16, got int64"):
        norm_forms.choose_norm((2, 8, 4, 4), torch.int64, "cpu")


# --- on a GPU ---
SHAPES = [(3, 128, 32, 32), (2, 256, 16, 16), (2, 128, 64, 64), (2, 48, 19, 20), (5, 8, 9, 7)]


def clusters_or_skip(x):
    found = norm_forms.possible(_native.core_for(x), x)
    if not found:
        pytest.skip("this GPU has no clusters of blocks, or not for this shape")
    return found


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_cluster_gives_the_bits_of_two_kernels(shape, dtype):
    x, weight, level, residual = features(shape, dtype, "cuda")
    core, residual = _native.core_for(x), norm_forms.like(residual, x)
    for other, paper in ((None, False), (residual, True)):
        two = norm_forms.forward(core, x, other, weight, level, paper, 1e-5, True, 0)
        for blocks in clusters_or_skip(x):
            one = norm_forms.forward(core, x, other, weight, level, paper, 1e-5, True, blocks)
            for result, wanted in zip(one, two, strict=True):
                assert result is wanted is None or same_bits(result, wanted), blocks


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
def test_one_pass_against_float64_on_a_gpu(dtype, monkeypatch):
    for shape in ((3, 128, 16, 16), (2, 48, 19, 20)):
        x, residual, *rest = (t.cuda() for t in cpu.inputs(shape, dtype, torch.channels_last))
        blocks = clusters_or_skip(x)[-1]
        monkeypatch.setattr(norm_forms, "blocks_for", lambda *_, blocks=blocks: blocks)
        cpu.check("native", x, None, *rest, elu=True)
        cpu.check("native", x, residual, *rest)


@pytest.mark.cuda
def test_one_pass_in_a_graph():
    x, weight, level, residual = features((4, 128, 32, 32), F16, "cuda")
    residual = norm_forms.like(residual, x)
    clusters_or_skip(x)

    def call():
        return ops.instance_norm_plus(x, weight, level, elu=True, residual=residual, kernel="one-pass")

    with torch.no_grad():
        call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y, total = call()
        x.add_(1)
        level.copy_(level.flip(0))
        graph.replay()
        wanted = ops.instance_norm_plus(x, weight, level, elu=True, residual=residual, kernel="two-kernel")
        assert same_bits(y, wanted[0]) and same_bits(total, wanted[1])


@pytest.mark.cuda
def test_choose_norm_measures_on_a_gpu():
    shape = (16, 128, 32, 32)
    x, weight, level, _ = features(shape, F16, "cuda")
    found = clusters_or_skip(x)
    times = norm_forms.choose_norm(shape, F16, "cuda")
    assert len(times) == 2 * (1 + len(found)) and all(0 < seconds < 1 for seconds in times.values())
    assert len(norm_forms._chosen) == 2
    same = [ops.instance_norm_plus(x, weight, level, kernel=kernel) for kernel in ("auto", "two-kernel")]
    assert same_bits(*same)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), pytest.raises(RuntimeError, match="before a graph is captured"):
        norm_forms.choose_norm(shape, F16, "cuda")
