"""Runs a function in several processes that form a group, as torchrun starts them: with a store of its own, but forked,
so that nothing is imported anew.

A process that has several threads, as those of pytest-xdist have, is not safe to fork: these tests run one after the
other by `make test-processes`, and are skipped elsewhere.
"""

import faulthandler
import multiprocessing
import os
import sys
import threading
import traceback

import pytest
import torch
import torch.distributed as dist
from tqdm import tqdm

from langevin_ext import cli


def needs_processes():
    """Skips a test that starts processes of a group, but for `make test-processes`."""
    if "TEST_PROCESSES" not in os.environ:
        pytest.skip("several processes: run by make test-processes")


def together(size, function, *arguments, timeout=60):
    """function(rank, *arguments) in `size` forked processes; the exit status of each, 1 for an exception."""
    needs_processes()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=_child, args=(rank, size, store.port, function, arguments)) for rank in range(size)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout)
        if child.is_alive():
            child.kill()
            child.join()
    return [child.exitcode for child in children]


def _child(rank, size, port, function, arguments):
    faulthandler.dump_traceback_later(40, exit=True)  # says where it hangs
    tqdm.set_lock(threading.RLock())  # the parent's may be held at the moment of the fork
    torch.set_num_threads(1)
    values = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    values |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        function(rank, *arguments)
    except SystemExit as error:
        os._exit(error.code if isinstance(error.code, int) else 1)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def command(function):
    """A process whose errors end as those of the command line do, its stderr in a file."""

    def run(rank, out):
        with open(out.with_suffix(f".{rank}"), "w") as file:
            os.dup2(file.fileno(), 2)
            sys.stderr = file
            cli.main.command("fails")(lambda: function(rank, out))
            cli.SHARED = ("fails",)
            cli.main(["fails"])

    return run


def told(out, size):
    """What the processes have said."""
    text = "".join(out.with_suffix(f".{rank}").read_text() for rank in range(size))
    return [line for line in text.splitlines() if line and "[W" not in line and "[E" not in line]
