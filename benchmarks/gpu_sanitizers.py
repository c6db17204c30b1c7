"""compute-sanitizer over small shapes of every kernel: memcheck, racecheck and synccheck at once, each with a limit."""

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
LIMIT = 90.0  # seconds for all of them, which run at once
ERRORS = 86  # exit status by which the sanitizer says that it found something


def find():
    """compute-sanitizer on PATH or in the CUDA toolkit, or None."""
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    places = [str(pathlib.Path(root) / "bin") for root in roots if root]
    return shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *places]))


def sanitizers(result, setting):
    """The tools side by side; each row says what one found."""
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
        log = (setting.folder / f"{tool}.log").open("wb")
        running[tool] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment), log
    deadline = time.monotonic() + LIMIT
    bad = [tool for tool, started in running.items() if not judged(result, setting, tool, *started, deadline)]
    if bad:
        raise Failed(f"{', '.join(bad)} did not pass")


def judged(result, setting, tool, process, log, deadline):
    """Waits for a tool and adds its row; whether it ran to the end and found nothing."""
    try:
        code = process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        code = None
    log.close()
    text = (setting.folder / f"{tool}.log").read_text(errors="replace")
    summaries = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", text)
    calls = re.findall(r"^(\d+) calls$", text, re.MULTILINE)
    row = {"what": tool, "calls": int(calls[-1]) if calls else 0, "summary": "; ".join(summaries)}
    if code == 0 and calls:
        result.add(**row)
        return True
    print(f"--- {tool} ---\n{text[-1500:]}")
    how = "it did not end in time" if code is None else f"exit status {code}"
    found = "it found errors" if code == ERRORS else "the calls did not run to the end"
    result.add(**row, wrong=f"{found}, {how}")
    return False
