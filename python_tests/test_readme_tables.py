"""README's measurements are the newest rows; each table from rows written here."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import readme_tables  # noqa: E402

ABOUT = {"device": "Some CPU", "threads": 2, "torch": "2.13.0+cpu", "commit": "new", "date": "2026-01-02T03:04"}


def kernel(op, implementation, us, **other):
    sizes = {"batch": 16, "size": 64, "channels": 128}
    ratios = {"ratio_to_torch": 100 / us, "share_of_copy": 25 / us}
    return {"op": op, "implementation": implementation, "median_us": us} | sizes | ratios | ABOUT | other


def network(implementation, batch, images_per_s, speedup, **other):
    row = {"implementation": implementation, "dtype": "float32", "ngf": 128, "shape": [batch, 3, 32, 32]}
    return row | {"images_per_s": images_per_s, "speedup": speedup, "relative_error": 2e-6} | ABOUT | other


def test_the_readme_shows_the_newest_rows():
    command = [sys.executable, str(ROOT / "benchmarks" / "readme_tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_check_notices_another_number_and_a_run_puts_it_right(tmp_path):
    readme = tmp_path / "README.md"
    good = (ROOT / "README.md").read_text()
    readme.write_text(good.replace(" µs |", " us |", 1))
    command = [sys.executable, str(ROOT / "benchmarks" / "readme_tables.py"), "--readme", str(readme)]
    done = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert done.returncode == 1 and "run python benchmarks/readme_tables.py" in done.stderr
    subprocess.run(command, check=True)
    assert readme.read_text() == good


@pytest.mark.parametrize("text", ["", readme_tables.BEGIN, readme_tables.END + readme_tables.BEGIN])
def test_marks_must_be_there_once(text):
    with pytest.raises(ValueError, match="README must have the two marks once each"):
        readme_tables.replaced(text, "")


def test_kernels_of_the_last_commit_and_most_threads():
    times = {"torch": 100.0, "compiled": 80.0, "fused": 50.0}
    rows = [kernel("langevin_step", how, us, commit="old") for how, us in times.items()]
    rows += [kernel("langevin_step", how, 2 * us, threads=1) for how, us in times.items()]
    rows += [kernel("langevin_step", how, us) for how, us in times.items()]
    lines = readme_tables.kernels(rows).splitlines()
    assert "2 threads" in lines[0] and "commit new, 2026-01-02" in lines[0] and "torch 2.13.0," in lines[0]
    assert lines[-1] == "| Langevin step with its noise | 100 µs | 80 µs | 50 µs | 2.00x | 50 % |"
    assert len(lines) == 5


def test_forward_has_a_column_for_each_batch_and_threads():
    rows = [network("official eager", 4, 1.0, 1.0, commit="old")]
    rows += [network("official eager", 4, 10.0, 1.0), network("engine", 4, 30.0, 3.0)]
    rows += [network("official eager", 16, 11.0, 1.0), network("engine", 16, 9.9, 0.9, relative_error=3e-6)]
    rows += [network("engine", 4, 99.0, 1.5, ngf=64), network("convolutions alone", 4, 40.0, 4.0)]
    lines = readme_tables.forward(rows).splitlines()
    assert lines[2] == "| | dtype | batch 4, 2 threads | batch 16, 2 threads | error |"
    assert lines[4].endswith("| float32 | 10.0 (1.00x) | 11.0 (1.00x) | 2.0e-06 |")
    assert lines[5].endswith("| float32 | 30.0 (3.00x) | 9.9 (**0.90x**) | 3.0e-06 |")
    assert len(lines) == 6


def test_each_device_has_a_table_of_its_own():
    names = ("a", "b, AVX512", "a, AVX2")
    rows = [network("official eager", 4, speed, 1.0, device=name) for speed, name in enumerate(names, start=1)]
    found = readme_tables.by_device(rows)
    assert [[row["images_per_s"] for row in one] for one in found] == [[1, 3], [2]]


def test_the_newest_report_of_a_gpu(tmp_path):
    assert "no report has been made" in readme_tables.gpu(tmp_path)
    for name, date, device, quick in (("a", "2026-02", "cuda", False), ("b", "2026-03", "cuda", True)):
        rows = [{"what": f"32 px of {name}", "s_per_run": 4.5}]
        report = {"date": date, "device": device, "quick": quick, "machine": {"device": "Some GPU", "commit": name}}
        report["sections"] = [{"name": "sampling", "title": "Whole runs", "rows": rows}]
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    text = readme_tables.gpu(tmp_path)
    assert "Some GPU, commit a, 2026-02" in text and "32 px of a" in text and "of b" not in text
