"""The engine against the networks it stands for, and in `sample`."""

import copy
import pickle
import threading

import pytest
import torch
from golden import fill

import langevin_ext
from langevin_ext import _native, engine, models
from langevin_ext.engine import convolutions

NETWORKS = ("NCSN", "NCSNv2")
needs_bf16 = pytest.mark.skipif(not engine.choice.bf16_runs(), reason="this CPU has no bfloat16 arithmetic")
needs_int16 = pytest.mark.skipif(bool(convolutions.why_not_int16()), reason=convolutions.why_not_int16())
REDUCED = [pytest.param("int16", marks=needs_int16), pytest.param("bf16", marks=needs_bf16)]
SIGMAS = [1.0, 0.3, 0.1]


def make(name, shape=(3, 16, 16), ngf=16):
    return fill(models.CLASSES[name](shape, ngf, SIGMAS)).eval()


def inputs(shape, batch):
    generator = torch.Generator().manual_seed(batch)
    return torch.rand(batch, *shape, generator=generator), torch.arange(batch) % len(SIGMAS)


def relative_error(got, expected):
    return ((got.double() - expected).abs().max() / expected.abs().max()).item()


def rms_error(got, expected):
    return ((got.double() - expected).norm() / expected.norm()).item()


def exact(model, x, level):
    with torch.no_grad():
        return copy.deepcopy(model).double()(x.double(), level)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "shape, ngf, batch",
    # 16 and 32 channels by Winograd, others directly; odd sizes, one tile, parts of tiles; sizes below the dilation 4
    [
        ((3, 16, 16), 32, 1),
        ((1, 8, 8), 32, 5),
        ((1, 9, 13), 16, 3),
        ((3, 18, 10), 16, 2),
        ((3, 11, 8), 7, 4),
        ((1, 28, 28), 48, 1),
        ((2, 8, 33), 16, 2),
    ],
)
def test_float32_equals_the_network(name, shape, ngf, batch):
    model, (x, level) = make(name, shape, ngf), inputs(shape, batch)
    fast = engine.build(model, precision="fp32")
    before = x.clone()
    y = fast(x, level)
    assert y.shape == x.shape and y.dtype == torch.float32 and y.is_contiguous() and not y.is_inference()
    assert relative_error(y, exact(model, x, level)) < 1e-5
    assert torch.equal(fast(x, level), y) and torch.equal(x, before)  # the buffers hold nothing over
    with torch.inference_mode():
        assert torch.equal(fast(x, level), y)


@needs_bf16
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape, ngf, batch", [((3, 16, 16), 32, 2), ((1, 9, 13), 16, 5), ((3, 11, 8), 7, 1)])
def test_bf16_is_near_the_network(name, shape, ngf, batch):
    model, (x, level) = make(name, shape, ngf), inputs(shape, batch)
    error = rms_error(engine.build(model, precision="bf16")(x, level), exact(model, x, level))
    # each of the 75 convolutions adds about 2^-9 of its own: sqrt(75) 2^-9 = 1.7 %, twice that for what adds up
    assert 1e-4 < error < 3.4e-2


@needs_int16
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "shape, ngf, batch", [((3, 16, 16), 32, 2), ((1, 9, 13), 16, 5), ((2, 8, 33), 16, 2), ((1, 28, 28), 48, 1)]
)
def test_int16_is_near_the_network(name, shape, ngf, batch):
    model, (x, level) = make(name, shape, ngf), inputs(shape, batch)
    error = rms_error(engine.build(model, precision="int16")(x, level), exact(model, x, level))
    # each of the convolutions adds about 1e-3 of its own, most of them to a sum with what is already there
    assert 1e-5 < error < 5e-3


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int16", marks=needs_int16)])
@pytest.mark.parametrize("name", NETWORKS)
def test_batches_and_threads(name, precision):
    model, (x, level) = make(name), inputs((3, 16, 16), 5)
    fast = engine.build(model, precision=precision)
    whole = fast(x, level)
    parts = torch.cat([fast(x[:2], level[:2]), fast(x[2:], level[2:])])
    # where oneDNN rounds otherwise, one of many integers may turn out another
    bound = 1e-5 if precision == "fp32" else 1e-3
    assert relative_error(parts, whole.double()) < bound
    assert fast(x[:0], level[:0]).shape == (0, 3, 16, 16)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert relative_error(fast(x, level), whole.double()) < bound
    finally:
        torch.set_num_threads(threads)


def test_any_sigma():
    model, (x, _) = make("NCSNv2"), inputs((3, 16, 16), 2)
    fast = engine.build(model)
    for sigma in (0.77, torch.tensor([0.5, 0.2]), torch.tensor(2.0)):
        with torch.no_grad():
            assert relative_error(fast.at_sigma(x, sigma), model.at_sigma(x, sigma).double()) < 1e-5
    assert not hasattr(engine.build(make("NCSN")), "at_sigma")  # `sample` would take it to know every level


def test_threads_take_turns():
    model, (x, level) = make("NCSN"), inputs((3, 16, 16), 4)
    fast, found = engine.build(model), {}
    expected = [fast(x[i : i + 1], level[i : i + 1]) for i in range(4)]

    def call(i):
        found[i] = [fast(x[i : i + 1], level[i : i + 1]) for _ in range(5)]

    workers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    assert all(torch.equal(y, expected[i]) for i in range(4) for y in found[i])


def change(model, how):
    with torch.no_grad():
        weight = model.res1[0].conv1.weight
        if how == "in place":
            weight.mul_(1.5)
        elif how == "replaced":
            model.res1[0].conv1.weight = torch.nn.Parameter(1.5 * weight)
        elif how == "loaded":
            state = model.state_dict()
            model.load_state_dict(state | {"res1.0.conv1.weight": 1.5 * weight})
        elif how == "norm":
            model.normalizer.embed.weight.mul_(1.5)
        else:
            weight.data.mul_(1.5)


@pytest.mark.parametrize("how", ["in place", "replaced", "loaded", "norm", "data"])
def test_changed_weights_are_used(how):
    model, (x, level) = make("NCSN"), inputs((3, 16, 16), 2)
    fast = engine.build(model)
    before = fast(x, level)
    change(model, how)
    if how == "data":  # torch does not count these
        assert torch.equal(fast(x, level), before)
        fast.refresh()
    after = fast(x, level)
    assert relative_error(after, before.double()) > 1e-3
    assert relative_error(after, exact(model, x, level)) < 1e-5


def test_missing_private_operators(monkeypatch):
    model, (x, level) = make("NCSN", ngf=7), inputs((3, 16, 16), 2)
    packed = engine.build(model)(x, level)
    with monkeypatch.context() as patch:
        patch.setattr(torch.ops, "mkldnn", object())
        reason = convolutions.why_not_packed.__wrapped__(torch.float32)
    assert "has no such operators ('object' object has no attribute" in reason
    monkeypatch.setattr(convolutions, "why_not_packed", lambda dtype: reason)
    monkeypatch.setattr(engine.choice, "why_not_packed", lambda dtype: reason)
    fast = engine.build(model)
    assert fast.notes[-1] == f"weights not repacked: {reason}"
    assert relative_error(fast(x, level), packed.double()) < 1e-5


def test_notes(monkeypatch):
    assert engine.build(make("NCSN")).notes[:2] == [
        "CPU engine in fp32",
        "3x3 convolutions by F(4x4, 3x3) where the size allows",
    ]
    assert "it is for 3x3 kernels and channels in multiples of 16" in engine.build(make("NCSN", ngf=7)).notes[1]
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert "it is compiled for AVX2 and AVX-512" in str(engine.build(make("NCSN")))


def test_errors(monkeypatch):
    model, (x, level) = make("NCSN"), inputs((3, 16, 16), 2)
    fast = engine.build(model)
    with pytest.raises(ValueError, match="NCSN: x must be"):
        fast(x[:, :1], level)
    with pytest.raises(ValueError, match=r"engine: level must be in \[0, 3\), got 0 to 3"):
        fast(x, level + torch.tensor([0, 2]))
    with pytest.raises(TypeError, match="engine: x must be float32 on the CPU, got torch.float64"):
        fast(x.double(), level)
    with pytest.raises(ValueError, match="engine: x must not require grad"):
        fast(x.requires_grad_(), level)
    with pytest.raises(ValueError, match="nor be within torch.func or a level of forward-mode"):
        torch.func.jvp(lambda x: fast(x, level), (x,), (x,))
    for copied in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="engine: an engine cannot be copied or pickled"):
            copied(fast)
    for arguments, message in (
        ({"precision": "fp8"}, "precision must be one of auto, fp32, tf32, fp16, bf16, int16, got 'fp8'"),
        ({"precision": "fp16"}, "precision must be one of auto, fp32, bf16, int16 on the CPU, got 'fp16'"),
        ({"precision": "tf32"}, "precision must be one of auto, fp32, bf16, int16 on the CPU, got 'tf32'"),
        ({"device": "meta"}, "device must be the model's, the CPU, got meta"),
    ):
        with pytest.raises(ValueError, match=f"engine: {message}"):
            engine.build(model, **arguments)
    monkeypatch.setattr(engine.choice, "bf16_runs", lambda: False)
    with pytest.raises(ValueError, match="'fp32' or 'auto' here, this CPU has no bfloat16"):
        engine.build(model, precision="bf16")
    monkeypatch.setattr(engine.choice, "why_not_int16", lambda: "this CPU has no AVX2")
    with pytest.raises(ValueError, match="'fp32' or 'auto' here, this CPU has no AVX2"):
        engine.build(model, precision="int16")


def test_models_without_an_engine(monkeypatch):
    class Own(models.NCSN):
        pass

    hooked = make("NCSN")
    hooked.res1[0].register_forward_hook(lambda *_: None)
    for model, reason in (
        (Own((1, 8, 8), 4, SIGMAS), "it is Own"),
        (make("NCSN").double(), "its parameters are torch.float64 on cpu"),
        (hooked, "it has hooks or parametrizations"),
    ):
        assert engine.why_not(model).startswith(reason)
        with pytest.raises(
            TypeError, match=f"engine: model must be a float32 NCSN or NCSNv2 on the CPU or a GPU; {reason}"
        ):
            engine.build(model)
    monkeypatch.setattr(_native, "core", lambda device: None)
    assert engine.why_not(make("NCSN")).startswith("the native core does not run")


def run(model, **options):
    return langevin_ext.sample(
        model, n=5, n_steps_each=3, seed=4, eps=1e-4, progress=False, return_info=True, **options
    )


class Function:
    """The same score, as something that `sample` knows no engine of."""

    def __init__(self, model):
        self._model, self.sigmas, self.shape = model, model.sigmas, model.shape

    def __call__(self, x, level):
        return self._model(x, level)


@pytest.mark.parametrize("name", NETWORKS)
def test_sample(name):
    model = make(name, (1, 8, 8))
    x, info = run(model)
    assert info["precision"] == info["settings"]["precision"] == "fp32"
    assert info["engine"] == [str(engine.build(model))]
    plain, other = run(Function(model))
    assert other["engine"] == ["the model itself: it is Function"]
    # the chains contract nothing yet, so that rounding of 1e-6 in each of ten scores stays below 1e-4
    torch.testing.assert_close(x, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(run(model, batch_size=2)[0], x, rtol=1e-4, atol=1e-4)
    sigmas = [0.3, 0.1] if name == "NCSN" else [0.4, 0.15]  # the second through at_sigma
    for one in (run(model, sigmas=sigmas), run(model, sigmas=sigmas, precision="fp32")):
        torch.testing.assert_close(one[0], run(model, sigmas=sigmas)[0], rtol=0, atol=0)
    assert run(copy.deepcopy(model).double(), dtype=torch.float64)[1]["precision"] == "fp64"


@pytest.mark.parametrize("precision", REDUCED)
def test_sample_in_reduced_precision(precision):
    model = make("NCSN", (1, 8, 8))
    x, info = run(model, precision=precision)
    assert info["precision"] == precision and precision in info["engine"][0]
    difference = (x - run(model)[0]).square().mean().sqrt()
    assert 0 < difference < 0.05 * x.std()
    with pytest.raises(ValueError, match="precision must be 'auto' or 'fp32' here; it is Function"):
        run(Function(model), precision=precision)
    with pytest.raises(ValueError, match="precision must be one of auto, fp32, bf16, int16 on the CPU, got 'fp16'"):
        run(model, precision="fp16")


@pytest.mark.parametrize("precision", ["fp32", *REDUCED])
def test_resume_is_bit_equal(precision, tmp_path):
    model, path = make("NCSN", (1, 8, 8)), tmp_path / "run"
    whole, _ = run(model, precision=precision, batch_size=3)

    def stop(state):
        if state["step"] == 4 and state["first"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, precision=precision, batch_size=3, checkpoint=path, callback=stop)
    other = "bf16" if precision == "fp32" else "fp32"
    if precision != "fp32" or engine.choice.bf16_runs():
        with pytest.raises(ValueError, match=f"another precision: '{precision}' there, '{other}' now"):
            run(model, precision=other, batch_size=3, checkpoint=path)
    assert torch.equal(run(model, precision=precision, batch_size=3, checkpoint=path)[0], whole)


@needs_int16
def test_auto_takes_no_factors_that_spoil_a_network():
    model = make("NCSN", ngf=64)
    assert engine.build(model).precision == "int16"
    with torch.no_grad():
        for name, block in model.named_modules():
            if name.startswith("res") and hasattr(block, "normalize2"):
                conv = getattr(block.conv2, "conv", block.conv2)
                block.normalize2.embed.weight[:, 5 :: conv.in_channels] *= 1000  # gamma, alpha and beta of a channel
                conv.weight[:, 5] /= 1000  # which makes up for it
    fast = engine.build(model, batch=2)
    fast(*inputs(model.shape, 2))  # which leaves the notes as they are
    assert fast.precision == "fp32" and "fp32 for int16, in which scores of its starting points are off" in str(fast)
    assert engine.build(model, precision="int16").precision == "int16"


@needs_int16
def test_auto_takes_no_factors_that_are_slower(monkeypatch):
    model = make("NCSN", ngf=64)
    monkeypatch.setattr(engine.choice, "why_int16_is_slow", lambda: "it has half the units")
    fast = engine.build(model, batch=2)
    fast(*inputs(model.shape, 2))
    assert fast.precision == "fp32" and "fp32 for int16: it has half the units" in str(fast)
    assert engine.build(model, precision="int16").precision == "int16"


def test_a_network_that_was_moved_or_cast_is_refused():
    model, (x, level) = make("NCSN"), inputs((3, 16, 16), 2)
    fast = engine.build(model, precision="fp32")
    y = fast(x, level)
    model.double()
    with pytest.raises(TypeError, match="engine: model must be as it was .*torch.float64 on cpu"):
        fast(x, level)
    assert torch.equal(fast.model.float() and fast(x, level), y)
