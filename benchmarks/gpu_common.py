"""What the sections of the GPU report share: where they write, how large they are, how they end."""

import contextlib
import json
import math
import os
import pathlib
import statistics
import subprocess
from dataclasses import dataclass, field

ABSENT = "not in this version"
LIMIT = "GPU_REPORT_LIMIT"  # of the environment: seconds after which a section is stopped
SAID = {"sm_mhz": "clocks.sm", "watts": "power.draw"}  # by nvidia-smi
SPARE = 5.0  # seconds that a section keeps to end what it started and to write what that said


class Skipped(Exception):
    """A section that cannot run here, and why."""


class Failed(Exception):
    """A section whose result is wrong, and what."""


@dataclass
class Result:
    """What a section has found so far, on the disk.

    Of the keys of a row, `what` and `variant` name it; `why` says in words what the numbers do not, and `wrong` what is
    not as it must be: then the report fails.
    """

    path: pathlib.Path
    facts: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)

    def add(self, **row):
        """One more row."""
        self.rows.append(row)
        self.write("running")

    def absent(self, **row):
        """A row of the plan that nothing can fill yet."""
        self.add(**row, why=ABSENT)

    def say(self, **facts):
        """More facts."""
        self.facts.update(facts)
        self.write("running")

    def write(self, status, why=""):
        """Everything so far, and how it stands."""
        temporary = self.path.with_suffix(".tmp")
        found = {"status": status, "why": why, "facts": self.facts, "rows": self.rows}
        temporary.write_text(json.dumps(found))
        os.replace(temporary, self.path)


@dataclass(frozen=True)
class Setting:
    """Where, how large and how long."""

    device: str
    quick: bool
    folder: pathlib.Path
    no_build: bool = False
    ends: float = math.inf  # by time.monotonic(), before which all that the section starts must have ended

    @property
    def cuda(self) -> bool:
        """Whether a GPU is measured."""
        return self.device == "cuda"

    def of(self, section) -> dict:
        """The facts of an earlier section of this report; nothing if it did not come so far."""
        path = self.folder / f"{section}.json"
        return json.loads(path.read_text())["facts"] if path.is_file() else {}


@contextlib.contextmanager
def watched(on=True):
    """A dict in which the median clock and power of the GPU inside are found behind it; nothing where no tool says."""
    found: dict[str, float] = {}
    command = ["nvidia-smi", f"--query-gpu={','.join(SAID.values())}", "--format=csv,noheader,nounits", "--loop=1"]
    command += ["-i", (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0]]
    process = None
    if on:
        with contextlib.suppress(OSError):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield found
    finally:
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                found |= medians(process.communicate(timeout=5.0)[0])


def medians(text) -> dict:
    """Of each column in which every line has a number."""
    columns = zip(*(line.split(",") for line in text.splitlines() if line.count(",") == len(SAID) - 1), strict=True)
    found = {}
    for name, values in zip(SAID, columns, strict=False):
        with contextlib.suppress(ValueError):
            found[name] = statistics.median(map(float, values))
    return found


def sentence(error) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
