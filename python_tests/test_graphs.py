"""Replayed steps against the loop, bit for bit: on the CPU the same calls from the same table, on a GPU a graph."""

import contextlib
import threading
from unittest import mock

import pytest
import torch
from test_engine import Function, make

import langevin_ext
from langevin_ext import engine
from langevin_ext.samplers import batches, copies, engines, graphs
from langevin_ext.samplers.table import Row, Run

HERE = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
GRID = torch.arange(64).view(1, 8, 8)
KNOWN = {"known": torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(3)), "mask": GRID % 3 == 0}
EACH = KNOWN | {"mask": (torch.arange(5)[:, None, None, None] + GRID) % 4 == 0}
CASES = {
    "annealed": {},
    "without denoising": {"denoise": False},
    "no steps": {"n_steps_each": 0},
    "no updates": {"n_steps_each": 0, "denoise": False},
    "one level": {"scheme": "langevin", "level": 1},
    "two levels of three": {"sigmas": [0.3, 0.1]},
    "largest seed": {"seed": 2**64 - 1, "first": 2**32 - 5},
    "known pixels": KNOWN,
    "known pixels, first": KNOWN | {"inpaint_order": "refresh"},
    "known pixels of each": EACH,
    "walk and jump": {"scheme": "walk-jump", "sigma": 0.1, "eps": None},
    "snapshots": {"snapshot": 2},
    "snapshots of levels": {"snapshot": "levels", "snapshot_n": 4},
}


def run(model, **options):
    arguments = {"n": 5, "batch_size": 3, "n_steps_each": 3, "seed": 4, "eps": 1e-4, "progress": False} | options
    return langevin_ext.sample(model, return_info=True, **arguments)


def same(one, two):
    """The samples and what is said of them."""
    assert torch.equal(one[0], two[0])
    assert one[1]["diagnostics"] == two[1]["diagnostics"] and one[1]["evaluations"] == two[1]["evaluations"]
    for a, b in zip(one[1]["snapshots"], two[1]["snapshots"], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("case", CASES)
def test_bits_of_the_loop(device, case):
    model = make("NCSN", (1, 8, 8)).to(device)
    replayed, loop = (run(model, graph=graph, **CASES[case]) for graph in (True, False))
    same(replayed, loop)
    assert replayed[1]["calls"] == loop[1]["calls"]
    assert [note[7:] for note in loop[1]["graph"]] == [": a loop: as asked for"]
    how = "a captured step, replayed" if device == "cuda" else "a step from a table, call by call"
    assert [note[7:] for note in replayed[1]["graph"]] == [f": {how}"]


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("name", ["NCSN", "NCSNv2"])
def test_several_resolutions(device, name):
    models = [make(name, (1, size, size), 8).to(device) for size in (8, 16)]
    for options in ({"scheme": "LRS-2-up-HRS-1"}, {"scheme": "LRS-up-HRS-1", "known": torch.rand(1, 16, 16),
                    "mask": torch.arange(256).view(1, 16, 16) > 99}):  # fmt: skip
        replayed, loop = (run(models, graph=graph, **options) for graph in (True, False))
        same(replayed, loop)
        assert len(replayed[1]["graph"]) == 2


@pytest.mark.parametrize("device", HERE)
def test_resume(device, tmp_path):
    model, whole = make("NCSN", (1, 8, 8)).to(device), None
    for number, (first, second) in enumerate([(True, True), (True, False), (False, True)]):
        path = tmp_path / str(number)

        def stop(state):
            if state["step"] == 4 and state["first"] == 3:
                raise KeyboardInterrupt

        whole = whole or run(model, graph=False, snapshot=2)
        with pytest.raises(KeyboardInterrupt):
            run(model, graph=first, snapshot=2, checkpoint=path, callback=stop)
        same(run(model, graph=second, snapshot=2, checkpoint=path), whole)


@pytest.mark.parametrize("device", HERE)
def test_callbacks_have_the_state_itself(device):
    model = make("NCSN", (1, 8, 8)).to(device)

    def found(graph):
        seen = []

        def callback(state):
            seen.append((state["first"], state["step"], state["kind"], state["x"].clone()))
            state["x"].clamp_(-1, 2)  # changes the run

        x, _ = run(model, graph=graph, callback=callback)
        return seen, x

    (seen, x), (expected, y) = found(True), found(False)
    assert [one[:3] for one in seen] == [one[:3] for one in expected] and torch.equal(x, y)
    assert all(torch.equal(one[3], other[3]) for one, other in zip(seen, expected, strict=True))


@pytest.mark.parametrize("device", HERE)
def test_a_state_that_is_not_finite_is_named_as_in_the_loop(device):
    model = make("NCSN", (1, 8, 8)).to(device)
    with torch.no_grad():
        model.end_conv.weight.mul_(1e30)
    messages = []
    for graph in (True, False):
        with pytest.raises(FloatingPointError) as raised:
            run(model, graph=graph, eps=1e-2, precision="fp32")
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("device", HERE)
def test_a_step_serves_levels_schemes_and_runs(device, monkeypatch):
    model, made = make("NCSN", (1, 8, 8)).to(device), []
    real = graphs.Step.capture

    def capture(self, fast):
        made.append(len(self.x))
        return real(self, fast)

    monkeypatch.setattr(graphs.Step, "capture", capture)
    fast = engine.build(model)  # the runs share it while it lives
    monkeypatch.setattr(engines, "_engine", lambda *_: fast)
    run(model, graph=True, n=6)
    run(model, graph=True, n=6, seed=9, eps=1e-5, scheme="langevin")
    run(model, graph=True, n=6, sigmas=[1.0, 0.1], n_steps_each=5)
    assert made == [3] and len(fast.steps) == 1
    run(model, graph=True, n=2, n_steps_each=2)  # another batch
    assert made == [3, 2]
    expected = run(model, graph=False, n=6)
    with torch.no_grad():
        model.end_conv.bias.add_(1.0)
    same(run(model, graph=True, n=6), run(model, graph=False, n=6))
    assert made == [3, 2, 3] and not torch.equal(run(model, graph=True, n=6)[0], expected[0])
    monkeypatch.setattr(graphs, "CAPACITY", 4)
    run(model, graph=True, n=2, n_steps_each=3)  # another table
    assert made == [3, 2, 3, 2] and {key[2] for key in fast.steps} == {1024, 16}
    for batch in (1, 4, 5):
        run(model, graph=True, n=batch, batch_size=batch, n_steps_each=1)
    assert len(fast.steps) == graphs.KEPT
    engines.forget()


def test_a_step_has_one_user_at_a_time():
    fast = engine.build(make("NCSN", (1, 8, 8)))
    one = graphs.take(fast, 2, None, 3)
    graphs.give(fast, one)
    assert graphs.take(fast, 2, None, 3) is one
    other = graphs.take(fast, 2, None, 3)
    assert other is not one and other.x.data_ptr() != one.x.data_ptr()


@pytest.mark.parametrize("how", ["evicted", "freed", "outdated", "with its engine"])
def test_a_step_goes_when_its_last_replay_has_ended(how):
    model = make("NCSN", (1, 8, 8))
    fast, owner, last = engine.build(model), mock.Mock(), mock.Mock()
    step = graphs.take(fast, 2, None, 3)
    graphs.give(fast, step)
    step.owner, step.given = owner, last
    del step
    assert not owner.wait_event.called
    if how == "evicted":
        for batch in range(3, 3 + graphs.KEPT):
            graphs.give(fast, graphs.take(fast, batch, None, 3))
    elif how == "freed":
        fast.free()
    elif how == "outdated":
        with torch.no_grad():
            model.end_conv.bias.add_(1.0)
        graphs.take(fast, 2, None, 3)
    del fast
    assert owner.wait_event.mock_calls == [mock.call(last)]


@pytest.mark.parametrize("device", HERE)
def test_threads_have_a_step_each(device):
    model = make("NCSN", (1, 8, 8)).to(device)
    expected, found = [run(model, graph=False, seed=seed)[0] for seed in range(3)], {}

    def call(seed):
        found[seed] = run(model, graph=True, seed=seed)[0]

    workers = [threading.Thread(target=call, args=(seed,)) for seed in range(3)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    assert all(torch.equal(found[seed], expected[seed]) for seed in range(3))


def test_what_runs_as_a_loop_and_why():
    network = make("NCSN", (1, 8, 8))
    for model, options, reason in (
        (network, {}, "a graph is for a GPU"),
        (network, {"graph": False}, "as asked for"),
        (network, {"scheme": "ou-reverse"}, "its updates are of another form (Reverse)"),
        (Function(network), {}, "no engine computes the score at these levels"),
        (make("NCSNv2", (1, 8, 8)), {"sigmas": [0.7, 0.2]}, "no engine computes the score at these levels"),
    ):
        arguments = {name: value for name, value in options.items() if name != "scheme"}
        if "scheme" in options:
            info = langevin_ext.sample(model, options["scheme"], 2, progress=False, return_info=True)[1]
        else:
            info = run(model, **arguments)[1]
        assert info["graph"] == [f"stage 0: a loop: {reason}"]
        if reason not in ("as asked for", "a graph is for a GPU"):
            with pytest.raises(ValueError, match="argument graph must be 'auto' or False here; stage 0: "):
                langevin_ext.plan(model, options.get("scheme", "annealed"), 2, graph=True, **arguments)
    for wish in (1, "yes", None):
        with pytest.raises(ValueError, match=f"sample: argument graph must be 'auto', True or False, got {wish!r}"):
            run(network, graph=wish)


def test_short_stages_are_not_worth_a_capture():
    fast = engine.build(make("NCSN", (1, 8, 8)))
    fast.device = torch.device("cuda", 0)
    rows = tuple(Row(0, 1.0, 0.1, 0.1, k) for k in range(graphs.WORTH))
    assert graphs.why_not(Run(0, rows), fast, "auto") == ""
    assert graphs.why_not(Run(0, rows[1:]), fast, "auto") == "7 updates are too few for a capture"
    assert graphs.why_not(Run(0, rows[1:]), fast, True) == ""


def test_a_capture_that_fails_is_said(monkeypatch):
    model = make("NCSN", (1, 8, 8))
    expected = run(model, graph=False)

    def fail(self, fast):
        raise RuntimeError("operation not permitted when stream is capturing\nat somewhere")

    monkeypatch.setattr(graphs.Step, "capture", fail)
    with pytest.raises(RuntimeError, match="operation not permitted"):
        run(model, graph=True)
    monkeypatch.setattr(graphs, "why_not", lambda *_: "")
    said = r"one by one: the capture failed \(.*\); torch may keep the memory it took until the process ends$"
    with pytest.warns(langevin_ext._native.SlowerPathWarning, match=said):
        found = run(model)
    same(found, expected)
    assert found[1]["graph"] == [
        "stage 0: a loop: the capture failed (operation not permitted when stream is capturing)"
    ]
    monkeypatch.setattr(graphs.Step, "capture", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(torch.OutOfMemoryError):
        run(model, graph=True)
    freed = []
    monkeypatch.setattr(engine.Engine, "free", lambda self: freed.append(self))
    with pytest.warns(langevin_ext._native.SlowerPathWarning, match=r"the capture ran out of memory \(full\)$"):
        found = run(model)  # the loop, which can take the batch in parts
    same(found, expected)
    assert len(freed) == 1 and found[1]["graph"] == ["stage 0: a loop: the capture ran out of memory (full)"]


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("slots", [0, 1, 2, 3])
def test_copies_hold_what_was_there(device, slots):
    under_way = copies.Copies(torch.device(device), slots)
    x, kept = torch.zeros(3, 2, 4, 4, device=device), torch.full((9, 3, 1, 4, 4), -1.0)
    for k in range(9):
        x.fill_(k)
        under_way.put(kept[k], x[:, :1])
        assert (kept[: max(0, k + 1 - slots)] == torch.arange(max(0, k + 1 - slots)).view(-1, 1, 1, 1, 1)).all()
        if device == "cpu" and slots:
            assert (kept[k] == -1).all()
    under_way.flush()
    assert (kept == torch.arange(9).view(-1, 1, 1, 1, 1)).all()


@contextlib.contextmanager
def no_waiting():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
def test_replays_do_not_wait_for_the_gpu():
    model = make("NCSN", (3, 16, 16)).cuda()
    fast = engine.build(model)
    rows = [Row(k % 3, 1.0, 1e-3, 1e-2, k) for k in range(20)]
    with torch.inference_mode():
        step = graphs.take(fast, 4, None, len(rows))
        step.load(torch.rand(4, 3, 16, 16, device="cuda"), rows, range(3), None, 1, 0, 0)
        expected = step.x.clone()
        under_way, kept = copies.Copies(step.x.device), torch.zeros(4, 4, 3, 16, 16)
        under_way.put(kept[3], step.x)  # page-locked memory is there afterwards
        under_way.put(kept[2], step.x)
        with no_waiting():
            for _ in rows:
                step.replay(fast)
            for k in range(2):
                under_way.put(kept[k], step.x)
        under_way.flush()
        for row in rows:
            row.update(expected, lambda x, level: fast(x, torch.full((4,), level, device="cuda")), seed=1, first=0)
        assert torch.equal(step.x, expected) and torch.equal(kept[1], expected.cpu())
        assert step.place.tolist() == [19, 1, 0] and step.graph is not None


def test_batches_that_fill_a_gpu():
    share = [batches.efficiency(b, 132, (3, 32, 32), 128) for b in (64, 66, 99, 100, 128, 132)]
    torch.testing.assert_close(share, [0.970, 1.0, 0.984, 0.789, 0.970, 1.0], rtol=0, atol=0.01)  # by hand
    assert batches.filling_batch(132, (3, 32, 32), 128, 170) == 132
    assert batches.filling_batch(132, (3, 64, 64), 128, 42) == 33
    assert batches.filling_batch(108, (3, 32, 32), 128, 170) == 162
    assert batches.filling_batch(132, (3, 32, 32), 128, 1) == 1


def test_default_batches(monkeypatch):
    model = make("NCSN", (3, 32, 32), 128)
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("", (), {"multi_processor_count": 132}))
    assert batches.default_batch([model], model.shape, torch.device("cpu")) == 21
    assert batches.default_batch([model], model.shape, gpu) == 132
    assert batches.default_batch([Function(model)], model.shape, gpu) == 85
