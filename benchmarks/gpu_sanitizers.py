"""compute-sanitizer over small shapes of every kernel: memcheck, racecheck and synccheck at once."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from gpu_checks import first_line
from gpu_common import Failed, Skipped

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = {
    "memcheck": ["--leak-check", "no", "--report-api-errors", "no"],
    "racecheck": [],
    "synccheck": [],
}
OURS = "lv"  # in the names of our kernels, _ZN2lv... or lv::...: hardly one of torch's own is watched
ERRORS = 86  # exit status by which the sanitizer says that it found something
SAID = re.compile(r"^=+ +(invalid|error:|barrier error)", re.IGNORECASE | re.MULTILINE)  # before it ends


def find():
    """compute-sanitizer on PATH, in the CUDA toolkit or beside nvcc, or None."""
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    places = [str(pathlib.Path(root) / "bin") for root in roots if root]
    places += [str(folder) for folder in beside(shutil.which("nvcc"))]
    return shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *places]))


def beside(program):
    """The folders of a program and of what it links to."""
    return [] if program is None else [pathlib.Path(program).parent, pathlib.Path(program).resolve().parent]


def sanitizers(result, setting):
    """The tools side by side; each row says what one found. One that the time is too short for is no error."""
    if not setting.cuda:
        raise Skipped("no GPU was asked for")
    program = find()
    if program is None:
        raise Skipped("compute-sanitizer is not installed: it is neither on PATH nor in the CUDA toolkit; nothing ran")
    result.say(tool="compute-sanitizer " + first_line(program, "--version", pattern=r"[Vv]ersion ([\d.]+)"))
    # without torch's cache each tensor is an allocation of its own, whose ends the sanitizer watches
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "OMP_NUM_THREADS": "1"}
    running = {}
    for tool, options in TOOLS.items():
        command = [program, "--tool", tool, "--error-exitcode", str(ERRORS), "--print-limit", "20", *options]
        command += ["--kernel-name", f"kernel_substring={OURS}", sys.executable, str(HERE / "gpu_sanitize.py")]
        with (setting.folder / f"{tool}.log").open("wb") as log:
            running[tool] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    while running:
        over = time.monotonic() > setting.ends
        for tool in [tool for tool, process in running.items() if over or process.poll() is not None]:
            judged(result, setting, tool, running.pop(tool))
        time.sleep(0.1)
    for column, raised, said in (("wrong", Failed, "did not pass"), ("why", Skipped, "did not end in time")):
        tools = [row["what"] for row in result.rows if column in row]
        if tools:
            raise raised(f"{', '.join(tools)} {said}")


def judged(result, setting, tool, process):
    """Adds the row of a tool that has ended, or ends it."""
    code = process.poll()
    if code is None:
        process.kill()
    text = (setting.folder / f"{tool}.log").read_text(errors="replace")
    summaries = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", text)
    calls = re.findall(r"^(\d+) calls$", text, re.MULTILINE)
    row = {"what": tool, "calls": int(calls[-1]) if calls else 0, "summary": "; ".join(summaries)}
    if code == 0 and calls:
        result.add(**row)
        return
    print(f"--- {tool} ---\n{text[-1500:]}")
    if code is None and not SAID.search(text):
        result.add(**row, why="it did not end in time")
        return
    how = "it did not end in time" if code is None else f"exit status {code}"
    found = "it found errors" if code in (None, ERRORS) else "the calls did not run to the end"
    result.add(**row, wrong=f"{found}, {how}")
