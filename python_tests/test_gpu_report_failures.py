"""What the GPU report says of what fails: which test, which kernel, and what remains of the others."""

import contextlib
import json
import math
import pathlib
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

import langevin_ext

BENCHMARKS = pathlib.Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import gpu_checks  # noqa: E402
import gpu_common  # noqa: E402
import gpu_forward  # noqa: E402
import gpu_kernels  # noqa: E402
import gpu_norms  # noqa: E402
import gpu_report  # noqa: E402
from gpu_markdown import markdown  # noqa: E402

HEAD = "import os, pytest\npytestmark = pytest.mark.cuda\nwaited = 'CUDA_LAUNCH_BLOCKING' in os.environ\n"
FILES = {
    "good": "def test_a(): pass\n@pytest.mark.skip(reason='small')\ndef test_b(): pass",
    # a kernel of the first test faults; the second says so, too, and alone it passes
    "faults": "def test_a(): raise RuntimeError('one_kernel: illegal' if waited else 'CUDA error')\n"
    "def test_b(): assert waited, 'CUDA error'",
    "order": "def test_b(): assert waited",
    "falls": "def test_a(): os._exit(3)",
    "empty": "",
}


@pytest.fixture
def result(tmp_path):
    return gpu_common.Result(tmp_path / "tests.json")


def files_of(tmp_path, result, *names):
    paths = [tmp_path / f"test_{name}.py" for name in names]
    for path, name in zip(paths, names, strict=True):
        path.write_text(HEAD + FILES[name])
    gpu_checks.tested(result, tmp_path, paths)


def test_each_file_has_a_process_and_the_first_failure_runs_alone(tmp_path, result, capsys):
    with pytest.raises(gpu_common.Failed, match="^4 of the tests or files failed, 1 tests passed$"):
        files_of(tmp_path, result, *FILES)
    assert result.facts == {"passed": 1, "failed": 3, "skipped": 1}
    rows = {row["what"].split(".")[-1]: row for row in result.rows if "wrong" in row}
    assert rows["test_faults::test_a"]["wrong"] == "RuntimeError: CUDA error"
    assert rows["test_faults::test_a"]["alone"] == "RuntimeError: one_kernel: illegal"
    assert "alone" not in rows["test_faults::test_b"] and rows["test_order::test_b"]["alone"] == "passes"
    file = next(row for row in result.rows if row["what"] == "test_falls.py")
    assert file["wrong"] == "pytest: exit status 3, without a test that failed"
    assert file["alone"] == "not run: which test it was is in the output"
    said = capsys.readouterr().out
    assert "--- test_falls.py: exit status 3 ---" in said and "test_falls.py::test_a" in said
    assert "alone: RuntimeError: one_kernel: illegal ---" in said


@pytest.mark.parametrize("left, limits", [(math.inf, (75, 30)), (60, (45, 60)), (2, (1.5, 2))])
@pytest.mark.parametrize("fails", [False, True])
def test_a_file_that_hangs(tmp_path, result, monkeypatch, capsys, left, limits, fails):
    seen = []

    def run(command, *, stdout, timeout, **_):
        seen.append(timeout)
        stdout.write(b"a/test_hangs.py::test_a[x y] FAILED [ 9%]\n" * fails + b"a/test_hangs.py::test_b")
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(gpu_checks.subprocess, "run", run)
    raised = (gpu_common.Skipped, "^test_hangs.py did not end in time, 0 tests passed$")
    if fails:
        raised = (gpu_common.Failed, "^1 of the tests or files failed, 0 tests passed$")
    with pytest.raises(raised[0], match=raised[1]):
        gpu_checks.tested(result, tmp_path, [tmp_path / "test_hangs.py"], ends=time.monotonic() + left)
    assert seen[0] == pytest.approx(limits[0], abs=0.6) and len(seen) == 1 + fails
    stopped = f"stopped after {seen[0]:.0f} s"
    assert result.rows[-1] == {"what": "test_hangs.py", "why": f"pytest: {stopped}"}
    if fails:
        assert seen[1] == pytest.approx(min(30, limits[1]), abs=0.6)
        assert result.rows[0]["what"] == "test_hangs::test_a[x y]" and "failed" in result.rows[0]["wrong"]
    assert f"--- test_hangs.py: {stopped} ---\na/test_hangs.py::test_" in capsys.readouterr().out


def test_files_that_pass(tmp_path, result):
    files_of(tmp_path, result, "good", "empty")
    assert result.facts == {"passed": 1, "failed": 0, "skipped": 1}
    with pytest.raises(gpu_common.Failed, match="0 tests passed"):
        files_of(tmp_path, gpu_common.Result(tmp_path / "other.json"), "empty")


@pytest.mark.parametrize("failures, fails", [(0, False), (1, False), (2, True)])
def test_a_build_that_fails_is_tried_with_warnings(tmp_path, result, monkeypatch, failures, fails):
    tried = []

    def run(command, *, env=None, **_):
        if "pip" not in command:
            return SimpleNamespace(returncode=0, stdout="INFO" + json.dumps(langevin_ext.backend_info()), stderr="")
        tried.append(env.get("LANGEVIN_WERROR"))
        return SimpleNamespace(returncode=int(len(tried) <= failures))

    monkeypatch.delenv("LANGEVIN_WERROR", raising=False)
    monkeypatch.setattr(gpu_checks.subprocess, "run", run)
    setting = gpu_common.Setting("cpu", True, tmp_path)
    with pytest.raises(gpu_common.Failed, match="pip ended") if fails else contextlib.nullcontext():
        gpu_checks.build(result, setting)
    assert tried == [None, "0"][: failures + 1] and ("again" in result.facts) == (failures > 0)


SECTION = """
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--folder") + 1])
error = "one_kernel: illegal" if "CUDA_LAUNCH_BLOCKING" in os.environ else "CUDA error"
found = {"status": "passed", "why": "", "facts": {}, "rows": []}
if sys.argv[1] in WRONG:
    rows = [{"what": f"case {k}", "wrong": error} for k in range(9)]
    found |= {"status": "failed", "why": "wrong rows: 9", "rows": rows}
(folder / f"{sys.argv[1]}.json").write_text(json.dumps(found))
print("the last line of", sys.argv[1])
sys.exit(sys.argv[1] in WRONG)
"""


def report_of(tmp_path, wrong, device="cuda"):
    script = tmp_path / "section.py"
    script.write_text(f"WRONG = {wrong!r}\n" + SECTION)
    command = (str(script),)
    sections = [
        gpu_report.Section("machine", "Machine", 60.0, command=command, repeats=False),
        gpu_report.Section("kernels", "Kernels", 60.0, command=command),
    ]
    return gpu_report.run(sections, gpu_report.parse(["--device", device, "--out", str(tmp_path / "out")]))


def test_a_section_that_failed_names_the_kernel(tmp_path, capsys):
    report = report_of(tmp_path, ["kernels"])
    machine, kernels = report["sections"]
    expected = "exit status 1; case 0: one_kernel: illegal; the last line of kernels"
    assert kernels["again"] == expected and "again" not in machine
    assert kernels["rows"][0]["wrong"] == "CUDA error" and gpu_report.exit_status(report) == 1
    assert expected in markdown(report)
    assert expected in json.dumps(json.loads(next((tmp_path / "out").glob("*.json")).read_text()))
    for section in report["sections"]:
        gpu_report.show(section)
    said = capsys.readouterr().out
    assert "=== kernels: failed wrong rows: 9\nwhat: case 0; wrong: CUDA error\n" in said
    assert "and 4 more\nthe last line of kernels\n" in said and expected in said and "=== machine" not in said


@pytest.mark.parametrize("wrong, device", [(["machine", "kernels"], "cuda"), (["kernels"], "cpu")])
def test_what_does_not_run_once_more(tmp_path, wrong, device):
    assert not any("again" in section for section in report_of(tmp_path, wrong, device)["sections"])


def test_a_process_that_cannot_be_killed_is_left(monkeypatch):
    def wait(timeout):
        raise subprocess.TimeoutExpired("section", timeout)

    killed = []
    monkeypatch.setattr(gpu_report.os, "killpg", lambda *arguments: killed.append(arguments))
    gpu_report.stop(SimpleNamespace(pid=7, wait=wait))
    assert killed == [(7, gpu_report.signal.SIGKILL)]


def test_ours_that_do_not_run_are_wrong():
    error, full = RuntimeError("illegal"), torch.OutOfMemoryError("full")
    for name in ("engine, fp16", "langevin_ext, float32"):
        assert gpu_forward.kind_of(error, name) == "wrong" and gpu_forward.kind_of(full, name) == "why"
    assert gpu_forward.kind_of(error, "torch.compile, rewritten norm, fp16 NHWC") == "why"


@pytest.mark.parametrize(
    "name, error, column",
    [
        ("engine, fp16", RuntimeError, "wrong"),
        ("engine, fp16", torch.OutOfMemoryError, "why"),
        ("released, eager, fp16 NHWC", RuntimeError, "why"),
    ],
)
def test_an_engine_that_no_graph_holds_is_wrong(result, monkeypatch, name, error, column):
    def captured(calls, device):
        raise error("not permitted")

    monkeypatch.setattr(gpu_forward, "captured", captured)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert gpu_forward.replay(result, "32 px", name, None) == {}
    text = f"not captured: {error.__name__}: not permitted"
    assert result.rows == [{"what": "32 px", "variant": name, "how": "graph", column: text}]
    monkeypatch.setattr(gpu_forward, "captured", lambda calls, device: (calls, device))
    assert gpu_forward.replay(result, "32 px", name, 7) == {"graph": ([7], torch.device("cuda"))}


@pytest.mark.parametrize("table", [None, "<testsuites><testsuite><testcase name='a'"])
def test_a_table_that_was_cut_off(tmp_path, monkeypatch, table):
    def run(command, **_):
        if table:
            pathlib.Path(next(part for part in command if "--junitxml" in part).split("=", 1)[1]).write_text(table)
        return SimpleNamespace(returncode=3)

    monkeypatch.setattr(gpu_checks.subprocess, "run", run)
    assert gpu_checks.pytest_in(tmp_path, "a", [], "cuda", (9, math.inf)) == ("exit status 3", None, "")


def test_a_convolution_that_does_not_run_loses_its_row(tmp_path, result, monkeypatch):
    real = gpu_norms.convolution

    def convolution(channels, size, dilation, batch, *rest):
        if batch == 2:
            raise RuntimeError("no plan")
        return real(channels, size, dilation, batch, *rest)

    monkeypatch.setattr(gpu_norms, "convolution", convolution)
    gpu_norms.convolutions(result, gpu_common.Setting("cpu", True, tmp_path))
    found = [(row["variant"], row.get("why"), "median_us" in row) for row in result.rows]
    there = [("batch 3", None, True), ("batch 3, cudnn.benchmark", None, True)]
    assert found == 2 * [("batch 2", "RuntimeError: no plan", False), *there]


def test_a_kernel_that_faults_behind_its_row(tmp_path, result, monkeypatch):
    def synchronize():
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(gpu_kernels, "checked_rows", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    gpu_kernels.case_rows(result, gpu_common.Setting("cuda", True, tmp_path), "one", None)
    assert result.rows == [{"what": "one", "wrong": "RuntimeError: an illegal memory access was encountered"}]
