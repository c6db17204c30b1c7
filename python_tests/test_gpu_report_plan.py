"""What the GPU report measures, in which order and in how much time."""

import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import gpu_common  # noqa: E402
import gpu_kernels  # noqa: E402
import gpu_norms  # noqa: E402
import gpu_report  # noqa: E402
import gpu_runs  # noqa: E402


@pytest.fixture
def place(tmp_path):
    return gpu_common.Result(tmp_path / "one.json"), gpu_common.Setting("cpu", True, tmp_path)


def test_what_is_kept_fits():
    kept = {section.name: section.kept for section in gpu_report.SECTIONS}
    assert all(section.kept <= section.limit for section in gpu_report.SECTIONS)
    assert sum(kept.values()) <= 60 * gpu_report.MINUTES < 540
    assert min(kept.values()) >= 10 and min(kept[name] for name in ("build", "tests", "sanitizers")) >= 50


def test_schemes_are_those_of_the_paper():
    assert gpu_runs.PAPER == {"LRS": 170, "HRS": 556, "LRS-2-up-HRS-9": 533}


def test_make_knows_the_report():
    done = subprocess.run(["make", "-n", "gpu-report"], cwd=BENCHMARKS.parent, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split()[1:] == ["benchmarks/gpu_report.py"]
    options = ["OUT=a folder", "ARGS=--only machine --quick"]
    done = subprocess.run(["make", "-n", "gpu-report", *options], cwd=BENCHMARKS.parent, capture_output=True, text=True)
    assert done.stdout.strip().endswith('benchmarks/gpu_report.py --out "a folder" --only machine --quick')


def test_torch_compile_has_each_op_once_and_the_widest_norms(place, monkeypatch):
    compiled = []

    def rows(result, setting, what, make, target=None, compiles=True):
        compiled.extend([what.rsplit(" ", 1)[0]] * compiles)

    monkeypatch.setattr(gpu_kernels, "case_rows", rows)
    gpu_kernels.kernels(*place)
    ops = ["Langevin step", "CLD step", "normals", "perturbation", "loss and gradient", "bicubic upsampling"]
    assert compiled == ops
    compiled.clear()
    monkeypatch.setattr(gpu_norms, "case_rows", rows)
    gpu_norms.norms(*place)
    assert len(compiled) == 5 and all("fp16" in name or "bf16" in name for name in compiled)
    assert compiled[0] == "norm+ELU fp16 NHWC" and len(set(compiled)) == 5
