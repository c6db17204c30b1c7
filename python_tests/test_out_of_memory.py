"""Batches that do not fit into memory."""

import os
import signal
import subprocess
import sys
import warnings

import pytest
import torch
from golden import fill

from langevin_ext import engine, models, sample, scores
from langevin_ext.samplers.calls import is_out_of_memory

FIELD = scores.GaussianField((1, 3, 4))
RUN = {"n": 5, "seed": 3, "batch_size": 2, "n_steps_each": 4, "progress": False}
CPU_FULL = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."
ERRORS = [MemoryError(), RuntimeError(CPU_FULL), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")]


class Large:
    """A score that has memory for so many samples at a time."""

    def __init__(self, error, most, model=FIELD):
        self.model, self.sigmas, self.shape = model, model.sigmas, model.shape
        self._error, self._most, self._sizes = error, most, []

    def __call__(self, x, level):
        self._sizes.append(len(x))
        if len(x) > self._most:
            raise self._error
        return self.model(x, level)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_batch_that_does_not_fit_is_halved(error):
    run = {"n": 24, "seed": 3, "batch_size": 11, "n_steps_each": 4, "progress": False, "return_info": True}
    expected, info = sample(FIELD, **run)
    model = Large(error, 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x, found = sample(model, **run)
    assert torch.equal(x, expected) and found["diagnostics"] == info["diagnostics"]
    assert [str(one.message) for one in caught] == [
        "sample: out of memory with 11 samples of 3x4 at a time; going on with 3, which changes nothing but the speed"
    ]
    assert model._sizes[:9] == [11, 6, 3, 3, 3, 2, 3, 3, 3] and max(model._sizes[3:]) == 3


def test_memory_that_runs_out_twice_is_said_twice():
    model = Large(MemoryError(), 4)

    def shrink(now):
        model._most = 2 if now["step"] > 5 else 4

    with pytest.warns(UserWarning) as caught:
        x = sample(model, n=8, seed=3, n_steps_each=2, progress=False, callback=shrink)
    assert torch.equal(x, sample(FIELD, n=8, seed=3, n_steps_each=2, progress=False))
    assert [str(one.message)[14:56] for one in caught] == [
        " memory with 8 samples of 3x4 at a time; g",
        " memory with 4 samples of 3x4 at a time; g",
    ]


def test_a_sample_that_does_not_fit_alone(tmp_path):
    model = Large(MemoryError(), 0)
    with pytest.raises(MemoryError, match="^sample: a single sample must fit into memory, got an allocation "):
        sample(model, **RUN)


def test_other_errors_are_not_taken_for_it():
    model = Large(RuntimeError("shape mismatch"), 1)
    with pytest.raises(RuntimeError, match="^shape mismatch$"):
        sample(model, **RUN)
    assert model._sizes == [2]


def test_the_allocator_of_the_cpu_says_what_is_expected():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**52)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("name", ["NCSN", "NCSNv2"])
def test_an_engine_gives_its_buffers_back_before_the_halves(name, monkeypatch):
    model = fill(models.CLASSES[name]((1, 8, 8), 16, [1.0, 0.1])).eval()
    run = {"n": 12, "seed": 3, "n_steps_each": 2, "eps": 1e-4, "progress": False, "precision": "fp32"}
    with torch.inference_mode():
        expected = sample(model, batch_size=3, **run)
    forward, seen = engine.engine.Network.__call__, []

    def full(self, x, arena, level):
        seen.append((len(x), arena.bytes))
        if len(x) > 3:
            arena.give(arena.take((len(x), 16, 8, 8)))  # what the layers before the failure leave
            arena.scratch(1000)
            raise RuntimeError(CPU_FULL)
        return forward(self, x, arena, level)

    monkeypatch.setattr(engine.engine.Network, "__call__", full)
    with pytest.warns(UserWarning, match="out of memory with 12 samples of 8x8 at a time; going on with 3, which"):
        x = sample(model, batch_size=12, **run)
    assert seen[:3] == [(12, 0), (6, 0), (3, 0)] and {size for size, _ in seen[3:]} == {3}
    torch.testing.assert_close(x, expected)


REAL = """
import resource, sys, torch, warnings
from golden import fill
from langevin_ext import models, sample
torch.set_num_threads(1)
model = fill(models.NCSN((1, 16, 16), 16, [1.0])).eval()
run = dict(seed=3, n_steps_each=1, eps=1e-4, progress=False)
few = sample(model, n=64, batch_size=8, **run)
pages = int(open("/proc/self/statm").read().split()[0])
least = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (least, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    x = sample(model, n=1024, batch_size=1024, **run)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
torch.testing.assert_close(x[:64], few)
print([str(one.message) for one in caught if "out of memory" in str(one.message)])
"""


def test_an_engine_in_a_process_with_little_memory():
    """The activations of 1,024 samples take 16 MiB for each layer, a dozen of which are held at a time."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_ARENA_MAX": "1"}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-c", REAL, "100"]
    for _ in range(5):  # oneDNN's own convolution crashes in about one of ten, where it checks no allocation
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
        if done.returncode != -signal.SIGSEGV:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    assert "out of memory with 1024 samples of 16x16 at a time; going on with " in done.stdout


@pytest.mark.cuda
def test_the_memory_of_a_gpu_runs_out():
    class Hungry(Large):
        """Takes so much memory for each sample that three fit, and four do not."""

        def __init__(self):
            super().__init__(None, 12, FIELD)
            self._each = int(torch.cuda.mem_get_info()[0] / 3.5)

        def __call__(self, x, level):
            torch.empty(len(x) * self._each, dtype=torch.uint8, device=x.device)
            return super().__call__(x, level)

    run = {"n": 12, "seed": 3, "n_steps_each": 4, "progress": False, "device": "cuda"}
    with pytest.warns(UserWarning, match="out of memory with 12 samples of 3x4 at a time; going on with 3, which"):
        x = sample(Hungry(), batch_size=12, **run)
    assert torch.equal(x, sample(FIELD, batch_size=12, **run))
