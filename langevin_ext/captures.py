"""Captures of CUDA graphs: one at a time in the process, as CUDA and torch want it."""

import threading

import torch

# A capture begins by waiting for the whole device, which fails, and ends the other one too, while another is under way.
_one = threading.Lock()


def under_way(device) -> bool:
    """Whether what this thread launches on `device` goes into a graph."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


def captured(call, device) -> torch.cuda.CUDAGraph:
    """The graph of what call() launches on `device`; call() must not want a lock that is held by who wants a capture.

    The stream is one of the device's: torch's own belongs to the GPU of the first capture. Where a capture fails torch
    would leave it in the place of the caller's.
    """
    with _one, torch.cuda.device(device):
        before, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
                call()
        finally:
            torch.cuda.set_stream(before)
    return graph
