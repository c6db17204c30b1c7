"""Captures of CUDA graphs: one at a time in the process, as CUDA and torch want it."""

import contextlib
import threading
import warnings

import torch

# A capture begins by waiting for the whole device, which fails, and ends the other one too, while another is under way.
_one = threading.Lock()
_streams: dict[tuple[int, str], torch.cuda.Stream] = {}  # by the index of the GPU and what for
_failed: list[torch.cuda.CUDAGraph] = []  # torch's allocator goes on asking these whether an allocation is theirs


def under_way(device) -> bool:
    """Whether what this thread launches on `device` goes into a graph."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


@contextlib.contextmanager
def aside(device):
    """What is launched inside goes to another stream: a warm-up.

    The caller's stream waits for it, after an error too: memory that is given back there may be in use on the other.
    """
    with torch.cuda.device(device):
        caller, side = torch.cuda.current_stream(), _stream("warm-up")
        side.wait_stream(caller)
        try:
            with torch.cuda.stream(side):
                yield
        finally:
            caller.wait_stream(side)


def captured(call, device) -> torch.cuda.CUDAGraph:
    """The graph of what call() launches on `device`; call() must not want a lock that is held by who wants a capture.

    The stream is one of the device's: torch's own belongs to the GPU of the first capture. Where a capture fails torch
    would leave it in the place of the caller's, and its own generator as within a capture.
    """
    with _one, torch.cuda.device(device):
        before, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
        try:
            with _into(graph):
                call()
        except BaseException:
            _streams.pop((torch.cuda.current_device(), "capture"), None)  # which may still be as within a capture
            _end_of(graph)
            raise
        finally:
            torch.cuda.set_stream(before)
    return graph


def _into(graph):
    stream = _stream("capture", priority=-1)  # of those that hardly anyone else takes
    return torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")


def _stream(purpose, priority=0):
    """The current device's for this purpose.

    torch hands out 32 of each priority in turn: one more for each capture would soon be one that somebody launches on.
    """
    key = torch.cuda.current_device(), purpose
    return _streams.get(key) or _streams.setdefault(key, torch.cuda.Stream(priority=priority))


def _end_of(graph):
    """After a capture that failed: an empty one ends as it should, which frees the generator.

    Else torch.randn on this GPU would be an error from now on. What the capture allocated goes back where it could be
    ended, as after an allocation that failed. One that CUDA invalidated (by a call that waits, for instance) counts as
    under way for ever in torch 2.11: its memory and what the allocator has in its cache stay with the process.
    """
    _failed.append(graph)
    with contextlib.suppress(RuntimeError):
        graph.reset()
    with contextlib.suppress(RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that it is empty
        _failed.append(torch.cuda.CUDAGraph())
        with _into(_failed[-1]):
            pass
        _failed.pop()
