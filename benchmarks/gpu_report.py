"""One report of everything on a GPU: build, tests, noise bits, sanitizers, kernels, networks, sampling, training.

    python benchmarks/gpu_report.py                           make gpu-report: under nine minutes, without a network
    python benchmarks/gpu_report.py --device cpu --quick      the same sections on tiny shapes on the CPU
    python benchmarks/gpu_report.py --remake REPORT.json      the Markdown of an earlier report

Each section is a process of its own with a limit of its own: one that fails or hangs never loses the others. What is
there so far is on the disk at any time, as JSON and as Markdown. The exit status is 1 if something gave a wrong result:
the build, a test, the noise, a sanitizer, or a row that was checked; slow rows and missing tools are recorded only.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from gpu_common import LIMIT
from gpu_markdown import markdown

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results" / "gpu"
LEAST = 5.0  # seconds for which a section is still begun
TAIL = 16_000  # characters of a section's output that are kept where it did not pass
SHOWN = 5, 12  # its wrong rows, and lines of its output, that are printed
STOPS = 10.0  # seconds that a process has to end once it was killed
AGAIN = 45.0  # seconds for a section that failed, in which it runs once more


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    name: str
    title: str
    limit: float  # seconds
    correctness: bool = False  # whether the report fails with it
    kept: float = 0.0  # seconds that sections before it must leave for it
    command: tuple[str, ...] = (str(HERE / "gpu_section.py"),)  # what python runs, with the options behind it
    repeats: bool = True  # whether it runs once more where it failed, to find the kernel


MINUTES = 8.75  # which hold the seconds kept: each section has its own, whatever those before it take
SECTIONS = (
    Section("machine", "The machine", 40, kept=10, repeats=False),
    Section("build", "Build", 150, True, 60, repeats=False),
    Section("noise", "Noise: the GPU's bits against the CPU's", 45, True, 15),
    Section("tests", "Tests marked cuda", 120, True, 55, repeats=False),
    Section("sanitizers", "compute-sanitizer on small shapes of every kernel", 100, True, 60, repeats=False),
    Section("ceilings", "Ceilings", 40, kept=12),
    Section("kernels", "Kernels", 60, kept=35),
    Section("convolutions", "Convolutions", 45, kept=30),
    Section("training", "Training step", 60, kept=35),
    Section("norms", "Instance norm++", 70, kept=40),
    Section("forward", "Forward pass", 110, kept=70),
    Section("sampling", "Sampling, end to end", 120, kept=80),
)


def main(arguments=None) -> int:
    """Runs the sections; returns the exit status."""
    args = parse(arguments)
    if args.remake:
        report = json.loads(pathlib.Path(args.remake).read_text())
        write(pathlib.Path(args.remake).with_suffix(".md"), markdown(report))
        return 0
    chosen = [section for section in SECTIONS if not args.only or section.name in args.only]
    report = run(chosen, args)
    for section in report["sections"]:
        show(section)
    for section in report["sections"]:
        print(f"{section['name']:14} {section['status']:10} {section['seconds']:6.1f} s  {section['why']}")
    print(f"{report['seconds']:.0f} s; written: {report['files'][0]}, {report['files'][1]}")
    return exit_status(report)


def show(section):
    """Prints what went wrong in a section."""
    rows, lines = SHOWN
    wrong = [row for row in section["rows"] if row.get("wrong")]
    if not wrong and "output" not in section:
        return
    print(f"=== {section['name']}: {section['status']} {section['why']}")
    for row in wrong[:rows]:
        print("; ".join(f"{name}: {value}" for name, value in row.items() if isinstance(value, str)))
    if len(wrong) > rows:
        print(f"and {len(wrong) - rows} more")
    print("\n".join(section.get("output", "").splitlines()[-lines:]))
    if "again" in section:
        print(f"with launches that are waited for: {section['again']}")


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, nothing compiled by torch")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all sections together")
    parser.add_argument("--only", action="append", choices=[section.name for section in SECTIONS], metavar="SECTION")
    parser.add_argument("--no-build", action="store_true", help="take the core as it is installed")
    parser.add_argument("--commit", help="what to say of the source where git does not know")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder of the report")
    parser.add_argument("--remake", metavar="JSON", help="only write the Markdown of this report again")
    return parser.parse_args(arguments)


def run(sections, args) -> dict:
    """Runs the sections one after another and writes the report after each."""
    began = time.monotonic()
    report = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "device": args.device,
        "quick": args.quick,
        "machine": {},
        "sections": [],
        "files": [],
        "seconds": 0.0,
    }
    with tempfile.TemporaryDirectory() as folder:
        for number, section in enumerate(sections):
            later = sum(one.kept for one in sections[number + 1 :]) * min(1.0, args.minutes / MINUTES)
            left = 60 * args.minutes - (time.monotonic() - began) - later
            print(f"{section.title} ...", flush=True)
            report["sections"].append(outcome(section, args, pathlib.Path(folder), left))
            report["seconds"] = time.monotonic() - began
            if section.name == "machine":
                report["machine"] = machine(report["sections"][-1]["facts"], args)
            save(report, args.out)
        for section, found in zip(sections, report["sections"], strict=True):
            left = 60 * args.minutes - (time.monotonic() - began)
            if found["status"] == "failed" and worth_it(section, report) and left >= LEAST:
                found["again"] = once_more(section, args, pathlib.Path(folder), min(AGAIN, left))
                report["seconds"] = time.monotonic() - began
                save(report, args.out)
    return report


def worth_it(section, report) -> bool:
    """Whether a section that failed says more when it runs once more."""
    machine = next((one["status"] for one in report["sections"] if one["name"] == "machine"), "passed")
    return section.repeats and report["device"] == "cuda" and machine == "passed"


def once_more(section, args, folder, limit) -> str:
    """How a section ends when each launch is waited for: an error is then that of the kernel which it names."""
    folder = folder / "again"
    folder.mkdir(exist_ok=True)
    code, text = execute(section, args, folder, limit, CUDA_LAUNCH_BLOCKING="1")
    result = folder / f"{section.name}.json"
    rows = json.loads(result.read_text())["rows"] if result.is_file() else []
    wrong = next((f"{row.get('what')}: {row['wrong']}" for row in rows if row.get("wrong")), "no wrong row")
    last = (text.strip().splitlines() or ["no output"])[-1]
    return f"{'stopped' if code is None else f'exit status {code}'}; {wrong}; {last}"


def machine(facts, args) -> dict:
    """What the report says of the machine, also where torch could not be asked."""
    commit = args.commit or facts.get("commit", "none")
    return {"device": "unknown", "python": sys.version.split()[0]} | facts | {"commit": commit}


def outcome(section, args, folder, left) -> dict:
    """Runs a section in a process of its own; what it wrote, and how it ended."""
    found = {"name": section.name, "title": section.title, "correctness": section.correctness}
    found |= {
        "status": "not run",
        "why": "",
        "seconds": 0.0,
        "limit": min(section.limit, left),
        "facts": {},
        "rows": [],
    }
    if left < LEAST:
        return found | {"why": f"the {args.minutes:g} minutes were over, or kept for what follows", "limit": 0.0}
    began = time.monotonic()
    code, text = execute(section, args, folder, found["limit"])
    found["seconds"] = time.monotonic() - began
    result = folder / f"{section.name}.json"
    if result.is_file():
        found |= json.loads(result.read_text())
    if code is None:
        found |= {"status": "timed out", "why": f"stopped after {found['limit']:.0f} s; rows so far are kept"}
    elif code or not result.is_file() or found["status"] == "running":
        found |= {"status": "failed", "why": found["why"] or f"the process ended with exit status {code}"}
    return found if found["status"] in ("passed", "skipped") else found | {"output": text[-TAIL:]}


def execute(section, args, folder, limit, **environment):
    """(exit status, output); the status is None where the section and all that it started were stopped."""
    command = [sys.executable, *section.command, section.name, "--device", args.device, "--folder", str(folder)]
    command += ["--quick"] * args.quick + ["--no-build"] * args.no_build
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]  # the package of this tree, before it is installed too
    # unbuffered, as a process that aborts loses what it has not written
    known = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1", LIMIT: f"{limit:.1f}"}
    log = folder / f"{section.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | known | environment,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            stop(process)
    return code, log.read_text(errors="replace")


def stop(process):
    """Ends the processes of a section that are still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # of one that waits in the driver, where no signal comes
        process.wait(STOPS)


def save(report, folder):
    """Writes both files; their name is chosen with the first section, so that no earlier report is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    if not report["files"]:
        about = report["machine"]
        parts = (report["date"][:10], about.get("device", report["device"]), about.get("commit", "none"))
        name = "-".join("".join(c if c.isalnum() else "-" for c in part).strip("-") for part in parts)
        number = next(k for k in range(1, 1000) if not (folder / f"{name}-{k}.json").exists())
        report["files"] = [str(folder / f"{name}-{number}{suffix}") for suffix in (".json", ".md")]
    kept = {name: value for name, value in report.items() if name != "files"}
    write(report["files"][0], json.dumps(kept, indent=1) + "\n")
    write(report["files"][1], markdown(kept))


def write(path, text):
    """The whole file or none of it."""
    temporary = pathlib.Path(f"{path}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def exit_status(report) -> int:
    """1 if a result is wrong."""
    for section in report["sections"]:
        if section["correctness"] and section["status"] not in ("passed", "skipped"):
            return 1
        if any(row.get("wrong") for row in section["rows"]):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
