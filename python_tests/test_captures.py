"""Captures of CUDA graphs: what they leave of torch behind them, on a fake of its streams and on a GPU."""

import contextlib
from unittest import mock

import pytest
import torch

from langevin_ext import captures


class FakeStream:
    """Of torch.cuda, as much as a capture touches; the first capture fails."""

    current, generator = "the caller's", "free"

    def __init__(self, fail_in=None):
        self.fail_in = fail_in

    def graph(self, graph, stream, capture_error_mode):
        assert stream.startswith("one of this device") and capture_error_mode == "thread_local"
        return self

    def __enter__(self):
        self.before, FakeStream.current, FakeStream.generator = FakeStream.current, "the capture's", "captured"
        self.fails("begin")

    def __exit__(self, *_):
        self.fails("end")  # as torch does, before it puts the stream back
        FakeStream.current, FakeStream.generator = self.before, "free"

    def fails(self, where):
        if self.fail_in == where:
            self.fail_in = None
            raise RuntimeError("the capture was invalidated")


@pytest.mark.parametrize("fails", [False, True])
def test_a_warm_up_is_waited_for(monkeypatch, fails):
    said = []

    class Stream:
        def __init__(self, name="side", priority=0):
            self.name = name

        def wait_stream(self, other):
            said.append(f"{self.name} waits for {other.name}")

    caller = Stream("caller")
    monkeypatch.setattr(captures, "_streams", {})
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: caller)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        with captures.aside(torch.device("cuda", 1)):
            said.append("inside")
            1 / (not fails)  # noqa: B018
    assert said == ["side waits for caller", "inside", "caller waits for side"]


@pytest.mark.parametrize("fail_in", [None, "begin", "call", "end"])
def test_a_capture_leaves_torch_as_it_was(monkeypatch, fail_in):
    fake, graphs_made, streams = FakeStream(fail_in), [mock.Mock() for _ in range(3)], []
    monkeypatch.setattr(captures, "_failed", [])
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", iter(graphs_made).__next__)

    def stream(priority):
        streams.append(f"one of this device, {len(streams)}")
        assert priority == -1
        return streams[-1]

    monkeypatch.setattr(captures, "_streams", {})
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "graph", fake.graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: FakeStream.current)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: setattr(FakeStream, "current", stream))
    inside = []

    def call():
        inside.append((FakeStream.current, captures._one.locked()))
        if fail_in == "call":
            fake.fail_in = "end"  # what is not permitted in a capture ends it
            raise RuntimeError("not permitted")

    with contextlib.nullcontext() if fail_in is None else pytest.raises(RuntimeError):
        assert captures.captured(call, torch.device("cuda", 1)) is graphs_made[0]
    assert captures._failed == ([] if fail_in is None else graphs_made[:1])
    assert [graph.reset.called for graph in graphs_made] == [fail_in is not None, False, False]
    assert FakeStream.current == "the caller's" and not captures._one.locked()
    assert FakeStream.generator == "free"
    assert inside == ([] if fail_in == "begin" else [("the capture's", True)])
    captures.captured(lambda: None, torch.device("cuda", 1))
    assert len(streams) == (1 if fail_in is None else 2)  # the same again, but for one in which a capture failed


@pytest.mark.cuda
def test_torch_draws_after_a_capture_that_failed():
    device, x = torch.device("cuda", torch.cuda.current_device()), torch.ones(3, device="cuda")
    stream = torch.cuda.current_stream()
    with pytest.raises(RuntimeError):
        captures.captured(lambda: x.sum().item(), device)  # waits
    assert torch.cuda.current_stream() == stream and torch.randn(3, device="cuda").isfinite().all()
    graph = captures.captured(lambda: x.add_(1), device)
    graph.replay()
    assert x.tolist() == [2, 2, 2]
