"""The processes of one run, as torchrun starts them, and the few things that they say to each other.

CPU tensors travel by gloo, those of a GPU by nccl. One process alone is a group of one, in which nothing is sent.
"""

import contextlib
import hashlib
import os
from datetime import timedelta

import torch
import torch.distributed as dist

__all__ = ["Group", "LostProcess", "OtherProcessFailed", "processes", "speaks"]

PATIENCE = timedelta(days=7)  # while process 0 measures or writes, the others wait; a lost one is noticed at once
FAILURES = "langevin_ext/failures"


class LostProcess(ConnectionError):
    """Another process of the run has ended without a word."""


class OtherProcessFailed(ConnectionError):
    """Process 0 has failed, and says why itself."""


class Group:
    """The processes of one run.

    Args:
        rank: number of this process, from 0.
        size: how many there are.
    """

    def __init__(self, rank=0, size=1):
        self.rank, self.size = rank, size

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, which alone writes and reports."""
        return self.rank == 0

    def add_up(self, tensor) -> None:
        """Puts the sum over all processes into `tensor` (contiguous), the same bits everywhere.

        Raises:
            LostProcess: another process has ended.
        """
        self._call(dist.all_reduce, tensor)

    def copy_first(self, tensor) -> None:
        """Puts the values that process 0 has into `tensor`."""
        if self.size > 1:
            buffer = tensor.detach().contiguous()
            self._call(dist.broadcast, buffer, 0)
            tensor.detach().copy_(buffer)

    def first(self, function) -> int:
        """What `function()`, a bool or an integer (None: 0), gives in process 0, where alone it is called.

        Raises:
            OtherProcessFailed: it has raised an error there, which process 0 raises.
        """
        told = torch.zeros(2, dtype=torch.int64)
        try:
            if self.is_first:
                told[:] = torch.tensor([1, int(function() or 0)])
        finally:
            self.copy_first(told)
        if not told[0]:
            raise OtherProcessFailed("process 0 of the run has failed")
        return int(told[1])

    def wait(self) -> None:
        """Returns when all processes have come here."""
        self.add_up(torch.zeros(1))

    def check_equal(self, text, message) -> None:
        """Raises ValueError with `message` in process 0, and ends the others, unless all have the same `text`."""
        own = torch.frombuffer(bytearray(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)
        theirs = own.clone()
        self.copy_first(theirs)
        differs = (own != theirs).any()[None].to(torch.int64)
        self.add_up(differs)
        if differs:
            raise self.agreed(ValueError(message))

    def agreed(self, error) -> Exception:
        """What each process raises where all have met the same error: process 0 alone the error itself."""
        return error if self.is_first else OtherProcessFailed(str(error))

    def lost(self, message) -> Exception:
        """What each process raises that has noticed the loss of another: process 0 tells, the others if it is gone."""
        return LostProcess(message) if self.is_first or not _store_answers() else OtherProcessFailed(message)

    def _call(self, collective, *arguments):
        if self.size == 1:
            return
        try:
            collective(*arguments)
        except RuntimeError as error:
            # gloo says "[file:line] Connection closed by peer [address]. This is typically ..."
            reason = str(error).partition(". ")[0].rpartition(".cc:")[2].partition("] ")[2] or type(error).__name__
            raise LostProcess(f"process {self.rank} of {self.size} has lost another one ({reason})") from error


@contextlib.contextmanager
def processes():
    """The group of this process: that of torch.distributed, begun here if torchrun has started several processes.

    Yields:
        `Group`.

    Raises:
        ValueError: there are more processes than GPUs on this machine, or a group begun before has no gloo.
    """
    if dist.is_available() and dist.is_initialized():
        if "gloo" not in str(dist.get_backend_config()):
            raise ValueError(
                "langevin_ext: the process group must have gloo for what is on the CPU, as in"
                f" init_process_group('cpu:gloo,cuda:nccl'), got {dist.get_backend_config()}"
            )
        yield Group(dist.get_rank(), dist.get_world_size())
        return
    if world_size() == 1:
        yield Group()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_gpu())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    yield Group(dist.get_rank(), dist.get_world_size())
    dist.destroy_process_group()  # after a failure the process ends, and the end of it is what the others notice


def world_size() -> int:
    """How many processes torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among those that torchrun has started."""
    return int(os.environ.get("RANK", "0"))


def local_gpu() -> int:
    """The GPU of this process: torchrun's number of it on this machine, 0 without torchrun.

    Raises:
        ValueError: there are fewer GPUs.
    """
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise ValueError(f"torchrun: --nproc-per-node must be at most {count}, the GPUs that torch sees here")
    return index


def speaks() -> bool:
    """Whether this process is the first of its run to fail, the one that tells the user."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return True
    return _failures(1) in (1, None)


def _store_answers() -> bool:
    return _failures(0) is not None


def _failures(more) -> int | None:
    """The number of processes that have failed, after adding to it; None where the store has gone with its process."""
    try:
        return dist.distributed_c10d._get_default_store().add(FAILURES, more)
    except RuntimeError:
        return None
