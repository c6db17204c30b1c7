"""The GPU report, on the CPU: the shape of the report, sections that fail or hang, and what counts as wrong."""

import json
import math
import os
import pathlib
import subprocess
import sys
import time
from xml.etree import ElementTree

import pytest
import torch

from langevin_ext import ops, reference

BENCHMARKS = pathlib.Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import gpu_checks  # noqa: E402
import gpu_common  # noqa: E402
import gpu_report  # noqa: E402
import gpu_section  # noqa: E402
from gpu_markdown import markdown, table  # noqa: E402

RUNS = ("ceilings", "kernels", "norms", "convolutions", "forward", "sampling", "training")


# --- the whole report ---
@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    command = [sys.executable, str(BENCHMARKS / "gpu_report.py"), "--device", "cpu", "--quick", "--no-build"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.suffix for path in out.iterdir()) == [".json", ".md"]
    page, data = (next(out.glob(f"*{suffix}")).read_text() for suffix in (".md", ".json"))
    return json.loads(data), page


def test_every_section_is_there(report):
    sections = {section["name"]: section for section in report[0]["sections"]}
    assert list(sections) == [section.name for section in gpu_report.SECTIONS]
    for name, section in sections.items():
        skipped = name in ("tests", "sanitizers")
        assert (section["status"], section["why"]) == (
            ("skipped", "no GPU was asked for") if skipped else ("passed", "")
        ), section
        assert 0 < section["seconds"] <= section["limit"]
        assert bool(section["rows"]) == (name not in ("machine", "build", "tests", "sanitizers"))


def test_rows_have_numbers_or_a_reason(report):
    for section in report[0]["sections"]:
        for row in section["rows"]:
            numbers = [v for v in row.values() if isinstance(v, int | float) and not isinstance(v, bool)]
            assert all(math.isfinite(v) and v >= 0 for v in numbers)
            assert "wrong" not in row
            if section["name"] in RUNS:
                # what does not exist has no number at all
                assert (numbers == []) == (row.get("why") == gpu_common.ABSENT)


def test_shares_are_of_the_measured_ceilings(report):
    sections = {section["name"]: section for section in report[0]["sections"]}
    rates = sections["ceilings"]["facts"]
    assert set(rates) == {f"{name}_flop_per_s" for name in ("fp16", "bf16", "tf32", "fp32")} | {"copy_bytes_per_s"}
    row = next(r for r in sections["kernels"]["rows"] if r["variant"] == "fused")
    moved = 3 * 4 * 4 * 3 * 8 * 8  # x twice and the score, float32, 4 x 3 x 8 x 8
    assert row["bound_us"] == pytest.approx(1e6 * moved / rates["copy_bytes_per_s"])
    assert row["share"] == pytest.approx(row["bound_us"] / row["median_us"])


def test_machine_and_markdown(report):
    data, page = report
    assert {"device", "python", "torch", "cuda", "commit", "date", "threads"} <= set(data["machine"])
    assert page == markdown(data)
    assert "A trial on tiny shapes: its times mean nothing." in page
    for section in gpu_report.SECTIONS:
        assert f"| {section.title} |" in page
    assert page.count(gpu_common.ABSENT) == json.dumps(data).count(gpu_common.ABSENT)


def test_markdown_can_be_made_again(report, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report[0]))
    assert gpu_report.main(["--remake", str(path)]) == 0
    assert path.with_suffix(".md").read_text() == report[1]


def test_a_table():
    rows = [{"what": "a|b", "share": 0.5, "faster": 2.0}, {"what": "c", "median_us": 12345.6, "wrong": "0 is not 1"}]
    assert table(rows) == [
        "|  | of the bound | against plain torch | µs | remark |",
        "|---|---|---|---|---|",
        "| a\\|b | 50 % | 2.00x |  |  |",
        "| c |  |  | 12,346 | **wrong**: 0 is not 1 |",
    ]
    assert table([]) == []


# --- sections that go wrong ---
SCRIPT = """
import json, pathlib, subprocess, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--folder") + 1])
def result(**found):
    found = {"status": "running", "why": "", "facts": {}, "rows": []} | found
    (folder / f"{sys.argv[1]}.json").write_text(json.dumps(found))
"""


def run(tmp_path, body, *, limit=60.0, correctness=False, minutes=5.0):
    """The report of one section that is this script."""
    script = tmp_path / "section.py"
    script.write_text(SCRIPT + body)
    section = gpu_report.Section("one", "One", limit, correctness, command=(str(script),))
    args = gpu_report.parse(["--device", "cpu", "--out", str(tmp_path / "out"), "--minutes", str(minutes)])
    return gpu_report.run([section], args)


def test_a_section_that_hangs_is_stopped_with_its_children(tmp_path):
    mark = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(2.5); pathlib.Path({str(mark)!r}).touch()"
    body = f"result(rows=[{{'what': 'first'}}]); subprocess.run([sys.executable, '-c', {child!r}])"
    began = time.monotonic()
    found = run(tmp_path, body, limit=1.0)["sections"][0]
    assert found["status"] == "timed out" and found["rows"] == [{"what": "first"}]
    assert found["why"] == "stopped after 1 s; rows so far are kept"
    time.sleep(max(0.0, 3.5 - (time.monotonic() - began)))
    assert not mark.exists()


@pytest.mark.parametrize(
    "body, status, why",
    [
        ("result(status='passed')", "passed", ""),
        ("result(status='skipped', why='no tool')", "skipped", "no tool"),
        ("result(status='failed', why='bits differ'); sys.exit(1)", "failed", "bits differ"),
        ("sys.exit(3)", "failed", "the process ended with exit status 3"),
        ("result(); import os; os.abort()", "failed", "the process ended with exit status -6"),
        ("result()", "failed", "the process ended with exit status 0"),
    ],
)
def test_how_a_section_ends(tmp_path, body, status, why):
    report = run(tmp_path, "print('what it said')\n" + body, correctness=True)
    found = report["sections"][0]
    assert (found["status"], found["why"]) == (status, why)
    assert ("what it said" in found.get("output", "")) == (status == "failed")
    assert gpu_report.exit_status(report) == (status == "failed")
    page = (tmp_path / "out").glob("*.md").__next__().read_text()
    assert ("what it said" in page) == (status == "failed")


def test_only_wrong_results_fail_the_report(tmp_path):
    assert gpu_report.exit_status(run(tmp_path, "sys.exit(3)")) == 0  # no times is not a wrong result
    wrong = "result(status='passed', rows=[{'what': 'a', 'wrong': 'far off'}])"
    assert gpu_report.exit_status(run(tmp_path, wrong)) == 1


def test_no_section_is_begun_when_the_time_is_over(tmp_path):
    report = run(tmp_path, "result(status='passed')", correctness=True, minutes=0.01)
    assert report["sections"][0]["status"] == "not run"
    assert report["sections"][0]["why"] == "the 0.01 minutes were over, or kept for what follows"
    assert gpu_report.exit_status(report) == 1


def test_time_is_kept_for_the_sections_that_matter(tmp_path):
    script = tmp_path / "section.py"
    script.write_text(SCRIPT + "result(status='passed') if sys.argv[1] == 'b' else time.sleep(60)")
    one, other = (gpu_report.Section(n, n, 60.0, False, kept, (str(script),)) for n, kept in (("a", 0), ("b", 519)))
    args = gpu_report.parse(["--device", "cpu", "--out", str(tmp_path / "out")])
    found = gpu_report.run([one, other], args)["sections"]
    assert [section["status"] for section in found] == ["timed out", "passed"]
    assert found[0]["limit"] == pytest.approx(6, abs=0.5) and found[1]["limit"] == 60


def test_no_report_is_replaced(tmp_path):
    for _ in range(2):
        run(tmp_path, "result(status='passed')")
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_exceptions_of_a_section(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "gpu_section.py"), "kernels", "--device", "cpu", "--quick"]
    (tmp_path / "ceilings.json").write_text("not JSON")
    done = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True)
    found = json.loads((tmp_path / "kernels.json").read_text())
    assert done.returncode == 0 and found["status"] == "passed"  # each case loses its own rows alone
    assert all(row["why"].startswith("JSONDecodeError") for row in found["rows"])


def test_a_section_knows_when_it_must_end(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_section, "BEGAN", 100.0)
    monkeypatch.setenv(gpu_common.LIMIT, "60")
    monkeypatch.setattr(gpu_checks, "noise", lambda result, setting: result.say(ends=setting.ends))
    assert gpu_section.main(["noise", "--device", "cpu", "--folder", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "noise.json").read_text())["facts"]["ends"] == 160.0 - gpu_common.SPARE
    found = run(tmp_path, "import os; result(status='passed', facts=dict(os.environ))", limit=7.0)
    assert found["sections"][0]["facts"][gpu_common.LIMIT] == "7.0"


# --- what is wrong ---
@pytest.fixture
def place(tmp_path):
    return gpu_common.Result(tmp_path / "one.json"), gpu_common.Setting("cpu", True, tmp_path)


def test_noise_that_differs_in_one_bit_is_wrong(place, monkeypatch):
    def other(shape, **arguments):
        z = ops.philox_normal(shape, **arguments)
        if arguments["step"] == 3:
            z[2, 5] = torch.nextafter(z[2, 5], torch.tensor(9.0))
        return z

    gpu_checks.noise(*place)
    monkeypatch.setattr(reference, "philox_normal", other)
    with pytest.raises(gpu_common.Failed, match="^1 of 200000 normals differ between cpu and plain torch$"):
        gpu_checks.noise(*place)


def test_an_op_that_differs_is_wrong(place, monkeypatch):
    real = ops.cld_step
    monkeypatch.setattr(ops, "cld_step", lambda u, *a, **k: real(u, *a, **k).mul_(1.001))
    arguments = ["kernels", "--device", "cpu", "--quick", "--folder", str(place[1].folder)]
    assert gpu_section.main(arguments) == 1
    found = json.loads((place[1].folder / "kernels.json").read_text())
    rows = found["rows"]
    assert (found["status"], found["why"]) == ("failed", "wrong rows: 1")
    assert [row["what"] for row in rows if "wrong" in row] == ["CLD step 4x3x8x8"]
    assert len([row for row in rows if row["variant"] == "fused" and "median_us" in row]) == 9


def test_pytest_tables(place):
    cases = """<testsuites><testsuite>
        <testcase classname="a" name="good"/>
        <testcase classname="a" name="bad"><failure message="1 is not 2"/></testcase>
        <testcase classname="a" name="broken"><error/></testcase>
        <testcase classname="a" name="off"><skipped message="no GPU"/></testcase></testsuite></testsuites>"""
    assert gpu_checks.counted(place[0], ElementTree.fromstring(cases)) == 1
    assert place[0].facts == {"passed": 1, "failed": 2, "skipped": 1}
    assert [row.get("wrong") or row["why"] for row in place[0].rows] == ["1 is not 2", "error", "skipped: no GPU"]
