"""What the GPU report measures, in which order and in how much time."""

import contextlib
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest
import torch

BENCHMARKS = pathlib.Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import gpu_common  # noqa: E402
import gpu_forward  # noqa: E402
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
    outside = ("OUT", "ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # make hands its own on
    clean = {name: value for name, value in os.environ.items() if name not in outside}
    how = {"cwd": BENCHMARKS.parent, "env": clean, "capture_output": True, "text": True}
    done = subprocess.run(["make", "-n", "gpu-report"], **how)
    assert done.returncode == 0 and done.stdout.split()[1:] == ["benchmarks/gpu_report.py"]
    options = ["OUT=a folder", "ARGS=--only machine --quick"]
    done = subprocess.run(["make", "-n", "gpu-report", *options], **how)
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


@pytest.fixture(scope="module")
def passes(tmp_path_factory):
    """The rows of the forward passes, and for each row whether cuDNN searched, and in which thread."""
    folder, seen, real = tmp_path_factory.mktemp("passes"), {}, gpu_forward.row

    def row(result, setting, found, what, way, expected):
        seen[way.name] = torch.backends.cudnn.benchmark, threading.get_ident()
        assert torch.backends.cudnn.benchmark_limit == gpu_kernels.PLANS
        real(result, setting, found, what, way, expected)

    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit
    result = gpu_common.Result(folder / "forward.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_forward, "row", row)
        gpu_forward.forward(result, gpu_common.Setting("cpu", True, folder))
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit) == before
    return result.rows, seen


def test_plans_are_searched_for_where_a_row_says_so(passes):
    searched = {name: on for name, (on, _) in passes[1].items()}
    assert all(on == name.endswith(", cudnn.benchmark") for name, on in searched.items())
    assert threading.main_thread().ident not in {
        thread for _, thread in passes[1].values()
    }  # torch keeps those of each
    ours = {name for name in searched if name.startswith(("engine", "langevin_ext"))}
    assert len(ours) >= 5 and [name for name in ours if searched[name]] == ["engine, fp16, cudnn.benchmark"]
    assert all(on for name, on in searched.items() if name.startswith("released"))
    before = torch.backends.cudnn.benchmark
    with pytest.raises(ZeroDivisionError):
        gpu_kernels.planned(lambda: 1 / 0, True)
    assert torch.backends.cudnn.benchmark == before


def test_the_forward_passes_that_matter_come_first(passes):
    found = list(dict.fromkeys((row["what"], row["variant"]) for row in passes[0]))
    first = ["engine, fp16", "rewritten norm, eager, fp16 NHWC", "rewritten norm, eager, fp16 NHWC, cudnn.benchmark"]
    assert found[:6] == [(f"{size} px, batch 2", name) for size in (8, 16) for name in first]
    filling = ["engine, fp16", "released, eager, fp16 NHWC, cudnn.benchmark"]
    assert [one for one in found if one[0].endswith("batch 3")] == found[-4:]
    assert found[-4:] == [(f"{size} px, batch 3", name) for size in (8, 16) for name in filling]


def test_the_strongest_baseline_compiles_as_one_graph():
    """Traced in a process without triton, which some installations have in part."""
    code = """if True:
        import sys
        sys.modules["triton"] = None
        sys.path.append("benchmarks")
        import torch
        from gpu_forward import halved, without_kernels
        from langevin_ext.models import NCSN
        plain = without_kernels(halved(NCSN((3, 8, 8), 4).eval()))
        x, level = torch.rand(2, 3, 8, 8).half(), torch.tensor([0, 1])
        with torch.no_grad():
            assert torch.equal(torch.compile(plain, backend="eager", fullgraph=True)(x, level), plain(x, level))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_steps_of_training_are_those_of_train(place, monkeypatch):
    seen, real = [], gpu_runs.interleaved

    @contextlib.contextmanager
    def deterministic(device):
        seen.append("deterministic")
        yield
        seen.append("not")

    def interleaved(timed, *rest, **options):
        seen.append((len(place[0].rows), torch.backends.cudnn.benchmark))  # each row before the next is timed
        return real(timed, *rest, **options)

    monkeypatch.setattr(gpu_runs, "deterministic", deterministic)
    monkeypatch.setattr(gpu_runs, "interleaved", interleaved)
    gpu_runs.training(*place)
    ours = ["deterministic", (1, False), "not", "deterministic", (2, False), "not", (3, False)]
    assert seen == [(0, True), *ours]
    assert [row["variant"] for row in place[0].rows] == [name for name, *_ in gpu_runs.TRAINED]
    assert place[0].rows[0]["faster"] == 1 and all(row["faster"] > 0 for row in place[0].rows)


def test_a_step_of_training_that_fails_loses_its_row(place, monkeypatch):
    def fail(*_):
        raise RuntimeError("no plan")

    monkeypatch.setattr(gpu_runs, "plain_step", fail)
    gpu_runs.training(*place)
    assert place[0].rows[0]["why"] == "RuntimeError: no plan"
    assert all("median_ms" in row and "faster" not in row for row in place[0].rows[1:])


def test_the_baseline_of_training_has_its_own_order_of_weights(monkeypatch):
    seen = []

    def forward(state, x, level):
        seen.extend(tensor for tensor in state.values() if tensor.dim() == 4)
        return x * state["begin_conv.weight"].sum()

    monkeypatch.setattr(gpu_runs, "official_forward", forward)
    model = gpu_runs.network(8, 4, "cpu").to(memory_format=torch.channels_last)
    gpu_runs.plain_step(model, torch.rand(2, 3, 8, 8), 2)()
    assert len(seen) > 50 and all(weight.is_contiguous() and weight.is_leaf for weight in seen)


def test_whole_runs_come_first(place, monkeypatch):
    seen = []
    monkeypatch.setattr(gpu_runs, "run", lambda *arguments: seen.append(arguments[4]))
    gpu_runs.sampling(place[0], gpu_common.Setting("cpu", True, place[1].folder))
    order = [(scheme, captured) for captured in (True, False) for scheme in ("LRS", "HRS")]
    order += [("LRS-2-up-HRS-9", captured) for captured in (True, False)]
    assert [(which[0], which[2]) for which in seen[:6]] == order
    assert {which[0] for which in seen[6:]} == set(gpu_runs.PAPER) and all(which[2] for which in seen[6:])
    assert seen[1][4] == gpu_runs.ROOM["whole"] == 40


def test_clock_and_power(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        f'#!/bin/sh\nprintf "1980, 650.5\\n1830, 610.5\\n1950, 690\\n"; echo "$@" > {tmp_path}/said; exec sleep 9'
    )
    tool.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        patch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
        with gpu_common.watched() as found:
            for _ in range(100):
                time.sleep(0.0 if (tmp_path / "said").is_file() else 0.1)
            time.sleep(0.2)
            assert found == {}
        assert found == {"sm_mhz": 1950, "watts": 650.5}
        assert (tmp_path / "said").read_text().strip().endswith("--loop=1 -i 2")
        with gpu_common.watched(False) as found:
            pass
        assert found == {}
        patch.setenv("PATH", str(tmp_path / "nowhere"))
        with gpu_common.watched() as found:
            pass
        assert found == {}
    assert gpu_common.medians("1980, [N/A]\n1970, [N/A]\n") == {"sm_mhz": 1975}
    assert gpu_common.medians("No devices were found\n") == gpu_common.medians("") == {}
