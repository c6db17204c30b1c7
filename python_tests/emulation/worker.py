"""Runs checks on mutants, each in a process of its own: a mutant may crash or never end.

Reads from stdin a JSON list of [path of a built module, op]; writes a JSON list of verdicts, "passed" or what happened.
"""

import json
import os
import signal
import sys

import torch

from emulation import build, cases, checks, harness

LIMIT = 60  # seconds


def verdict(path, op):
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT)
        os.write(write_end, run(path, op).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        text = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if text:
        return text
    return f"killed by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else "no answer"


def run(path, op):
    try:
        emulation = harness.Emulation(build.load(path))
        for case in cases.FEW[op]:
            checks.check(op, emulation, **case)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip()[:300]}"
    return "passed"


if __name__ == "__main__":
    torch.set_num_threads(1)  # no thread may exist when a child is forked
    torch.testing.assert_close(torch.zeros(1), torch.zeros(1))  # imports much at its first call: once for all children
    print(json.dumps([verdict(path, op) for path, op in json.load(sys.stdin)]))
