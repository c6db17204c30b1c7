"""How far a long run is: a bar on a terminal, a line a minute in a log, a file that other processes can read.

Lines go to stderr, or to the logger "langevin_ext" once its level is set: at INFO those of progress, at DEBUG also
what is written when; above INFO there are neither lines nor bars.
"""

import contextlib
import datetime
import json
import logging
import os
import socket
import sys
import time
import warnings
from pathlib import Path

from tqdm import tqdm

from ._files import atomic_path

NAME = "status.json"
LINE_EVERY, STATUS_EVERY = 60.0, 10.0  # seconds
RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
SILENT_FOR = 10 * STATUS_EVERY  # after that a run on another machine may have ended without a word

logger = logging.getLogger("langevin_ext")


class Progress:
    """The progress of one task, as a context.

    Args:
        total: how many units there are.
        task: what is done, e.g. "train".
        unit: of what, e.g. "step".
        initial: how many are done already.
        shown: show it, as a bar or as lines.
        status: path of the status file, or None.

    Attributes:
        n, total: units done, and all.
    """

    def __init__(self, total, task, unit, *, initial=0, shown=True, status=None):
        self.total, self.task, self.unit, self.initial, self.n = total, task, unit, initial, initial
        self.status, self.note = None if status is None else Path(status), ""
        shown = shown and logger.level <= logging.INFO
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self.bar = tqdm(
            total=total,
            initial=initial,
            desc=task,
            unit=unit,
            disable=not (shown and terminal),
            dynamic_ncols=True,
        )
        self._lines = shown and not terminal
        self._began = self._last_line = time.monotonic()
        self._began_at, self._last_status = _now(), -float("inf")

    def __enter__(self):
        self._write(RUNNING)
        return self

    def __exit__(self, kind, error, _):
        self.bar.close()
        if kind is None:
            if self._lines:
                say(f"{self._done()} in {tqdm.format_interval(self._seconds())}{self._noted()}")
            self._write(FINISHED)
        elif issubclass(kind, Exception):
            self._write(FAILED, " ".join(str(error).split()) or kind.__name__)
        else:
            self._write(INTERRUPTED)

    def update(self, count=1, note=None) -> None:
        """`count` more units are done; `note` is a word on how it goes, kept until the next."""
        self.n += count
        if note is not None:
            self.note = note
            self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(count)
        now = time.monotonic()
        if self._lines and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            say(f"{self._done()}, {self._pace()}{self._noted()}")
        if now - self._last_status >= STATUS_EVERY:
            self._write(RUNNING)

    def rename(self, task) -> None:
        """Another part of the work begins."""
        self.task = task
        self.bar.set_description_str(task)

    def extend(self, count) -> None:
        """There are `count` more units than was known."""
        self.total += count
        self.bar.total = self.total

    def skip(self, count) -> None:
        """Units that an earlier session has done, which say nothing about the rate."""
        self.n, self.initial = self.n + count, self.initial + count
        self.bar.n, self.bar.initial = self.n, self.initial

    def _seconds(self):
        return time.monotonic() - self._began

    def _rate(self):
        """Units a second since this call began, None before the first."""
        return (self.n - self.initial) / max(self._seconds(), 1e-9) if self.n > self.initial else None

    def _left(self):
        rate = self._rate()
        return None if rate is None else max(0, self.total - self.n) / rate

    def _done(self):
        share = 100 * self.n / self.total if self.total else 100
        return f"{self.task}: {self.n} of {self.total} {self.unit}s ({share:.1f} %)"

    def _pace(self):
        rate = self._rate()
        return "no rate yet" if rate is None else f"{pace(rate, self.unit)}, {tqdm.format_interval(self._left())} left"

    def _noted(self):
        return f", {self.note}" if self.note else ""

    def _write(self, state, error=None):
        """Writes the status file; a run does not end because it cannot be written, but says so once."""
        if self.status is None:
            return
        self._last_status = time.monotonic()
        told = {
            "task": self.task,
            "state": state,
            "done": self.n,
            "total": self.total,
            "unit": self.unit,
            "per_second": self._rate(),
            "seconds": self._seconds(),
            "seconds_left": 0.0 if state == FINISHED else self._left(),
            "note": self.note,
            "error": error,
            "began": self._began_at,
            "updated": _now(),
            "process": os.getpid(),
            "host": socket.gethostname(),
        }
        try:
            with atomic_path(self.status) as temporary:
                temporary.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        except OSError as problem:
            warnings.warn(f"{self.task}: no status is written to {self.status}: {problem}", stacklevel=3)
            self.status = None


def say(line) -> None:
    """A line of progress: to the logger if its level was set, else to stderr; nowhere if that is closed or full."""
    if logger.level != logging.NOTSET:
        logger.info(line)
    elif sys.stderr is not None:  # None would be stdout to `print`
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


def pace(rate, unit) -> str:
    """A rate, or for slow ones its inverse."""
    return f"{rate:.3g} {unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s/{unit}"


def read_status(folder) -> dict:
    """What the status file of a run says, and `alive`: whether its process still runs, None where that is unknown.

    Args:
        folder: of the run, or the file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is something else.
    """
    path = Path(folder) / NAME if Path(folder).is_dir() else Path(folder)
    if not path.is_file():
        raise FileNotFoundError(f"status: {folder} must be the folder of a run, there is no {NAME} in it")
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
        age = (_parsed(_now()) - _parsed(status["updated"])).total_seconds()
        found = status | {"alive": _alive(status), "age": max(0.0, age)}
        describe(found)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"status: {path} must be the status file of a run, got something else") from error
    return found


def describe(status) -> str:
    """A sentence or two on what `read_status` found."""
    share = 100 * status["done"] / status["total"] if status["total"] else 100
    text = (
        f"{status['task']}: {status['state']}, {status['done']} of {status['total']} {status['unit']}s ({share:.1f} %)"
    )
    if status["state"] == RUNNING and status.get("per_second"):
        left = tqdm.format_interval(status["seconds_left"])
        text += f", {pace(status['per_second'], status['unit'])}, {left} left"
    if status.get("note"):
        text += f", {status['note']}"
    if status.get("error"):
        text += f": {status['error']}"
    text += f"; {status['age']:.0f} s ago, process {status['process']} on {status['host']}"
    if status["state"] == RUNNING and status["alive"] is False:
        text += ", which has ended without a word: call it again in the same way to go on"
    elif status["state"] == RUNNING and status["age"] > SILENT_FOR:
        text += ", silent for longer than usual"
    return text


def _alive(status):
    process = int(status["process"])
    if status["state"] != RUNNING or process <= 0:
        return False
    if status["host"] != socket.gethostname():
        return None
    try:
        os.kill(process, 0)  # asks, and sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _parsed(text):
    return datetime.datetime.fromisoformat(text)
