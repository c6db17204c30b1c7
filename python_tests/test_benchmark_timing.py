"""How the benchmarks time: in turn, as graphs, over sets of inputs, until their time is over."""

import contextlib
import time

import pytest
import torch

from langevin_ext import captures
from langevin_ext.benchmarking import timing


class Fake:
    """torch.cuda where a call takes a second on the device; `capture` says whether graphs can hold it."""

    def __init__(self, monkeypatch, capture=True):
        self.now, self.recorded, self.captures = 0.0, None, capture
        fake = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = fake.now

            def synchronize(self):
                pass

            def elapsed_time(self, end):
                return 1e3 * (end.at - self.at)

        class Graph:
            def replay(self):
                fake.now += self.calls * 1.0

            def reset(self):
                pass

        class Context:
            def __init__(self, graph, **_):
                self.graph = graph

            def __enter__(self):
                fake.recorded = 0

            def __exit__(self, *_):
                self.graph.calls, fake.recorded = fake.recorded, None
                if not fake.captures:
                    raise RuntimeError("operation not permitted when stream is capturing")

        class Stream:
            def __init__(self, priority=0):
                pass

            def wait_stream(self, other):
                pass

            __enter__ = __exit__ = lambda *_: None

        names = {"Event": Event, "CUDAGraph": Graph, "graph": Context, "Stream": Stream, "stream": lambda s: s}
        for name, value in names.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch.cuda, "current_stream", Stream)
        monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(captures, "_streams", {})
        for name in ("synchronize", "set_stream"):
            monkeypatch.setattr(torch.cuda, name, lambda *_: None)

    def call(self):
        if self.recorded is None:
            self.now += 1.0
        else:
            self.recorded += 1


def test_calls_are_timed_as_one_graph(monkeypatch):
    fake = Fake(monkeypatch)
    times = timing.rotated({"a": [fake.call] * 5, "b": [fake.call]}, 3, 1, "cuda", loops=("b",))
    assert times["a"] == (1.0, 0.0, "graph") and times["b"] == (1.0, 0.0, "loop")


def test_calls_that_no_graph_holds_are_timed_one_after_another(monkeypatch):
    fake = Fake(monkeypatch, capture=False)
    assert timing.rotated({"a": [fake.call] * 5}, 3, 1, "cuda")["a"] == (1.0, 0.0, "loop")


def test_sets_of_inputs_exceed_the_cache(monkeypatch):
    properties = type("Properties", (), {"L2_cache_size": 60 << 20})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert [timing.input_sets(moved << 20, "cuda") for moved in (1000, 50, 13, 1)] == [2, 3, 10, 64]
    assert timing.input_sets(1, "cpu") == 1


def test_interleaved_stops_when_its_time_is_over():
    with pytest.raises(ValueError, match="^interleaved: repeats must be at least 2, got 1$"):
        timing.interleaved({}, repeats=1)
    calls = []
    timing.interleaved({"a": lambda: calls.append(time.sleep(0.01))}, repeats=1000, warmup=1, seconds=0.0)
    assert len(calls) == 3  # a warm-up and two rounds
