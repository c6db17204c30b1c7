"""The build's switches and sentences, and what langevin_ext says where the native core cannot serve."""

import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import setuptools

import langevin_ext
from langevin_ext import _native

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="the sources are not beside the tests")


@pytest.fixture
def build(monkeypatch):
    """setup.py as a module, without the call of setup(); no switch is set and no toolkit found."""
    for name in ("LANGEVIN_CUDA", "LANGEVIN_CUDA_ARCHS", "LANGEVIN_NO_NATIVE", "CUDA_HOME", "CUDA_PATH", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: None)
    spec = importlib.util.spec_from_file_location("langevin_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "usual_candidate_roots", module.candidate_roots, raising=False)
    monkeypatch.setattr(module, "candidate_roots", lambda: iter(()))
    return module


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def toolkit(root):
    program(root / "bin" / "nvcc", "exit 1")
    (root / "include").mkdir()
    (root / "include" / "cuda_runtime.h").touch()
    (root / "lib64").mkdir()
    (root / "lib64" / "libcudart_static.a").touch()
    return root


def test_no_toolkit(build, monkeypatch):
    assert build.find_cuda() == (None, "no nvcc found")
    monkeypatch.setenv("LANGEVIN_CUDA", "0")
    assert build.find_cuda() == (None, "switched off by LANGEVIN_CUDA=0")
    monkeypatch.setenv("LANGEVIN_CUDA", "1")
    with pytest.raises(build.BuildError, match="LANGEVIN_CUDA=1 but no nvcc found; set CUDA_HOME"):
        build.find_cuda()
    monkeypatch.setenv("LANGEVIN_CUDA", "banana")
    with pytest.raises(build.BuildError, match="LANGEVIN_CUDA must be auto, 0 or 1, got 'banana'"):
        build.find_cuda()


def test_the_toolkit_is_found(build, monkeypatch, tmp_path):
    """By CUDA_HOME first, then by asking an nvcc on PATH, which may be a wrapper; an empty folder is passed over."""
    monkeypatch.setattr(build, "candidate_roots", build.usual_candidate_roots)
    home, wrapped, empty = toolkit(tmp_path / "home"), toolkit(tmp_path / "wrapped"), tmp_path / "empty"
    wrapper = program(tmp_path / "bin" / "nvcc", f"echo '#$ TOP={wrapped}/bin/..' >&2")
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    assert build.find_cuda() == (wrapped, "")
    monkeypatch.setenv("CUDA_HOME", str(empty))
    assert build.find_cuda() == (wrapped, "")
    monkeypatch.setenv("CUDA_HOME", str(home))
    assert build.find_cuda() == (home, "")


def test_a_toolkit_without_the_static_runtime_is_passed_over(build, monkeypatch, tmp_path):
    cuda = toolkit(tmp_path / "cuda")
    monkeypatch.setattr(build, "candidate_roots", lambda: iter([cuda]))
    (cuda / "lib64" / "libcudart_static.a").unlink()
    assert build.find_cuda() == (None, f"no libcudart_static.a in {cuda}")
    (cuda / "targets" / "x86_64-linux" / "lib").mkdir(parents=True)
    (cuda / "targets" / "x86_64-linux" / "lib" / "libcudart_static.a").touch()
    assert build.find_cuda() == (cuda, "")


def test_architectures(build, monkeypatch, tmp_path):
    nvidia_smi = program(tmp_path / "nvidia-smi", "exit 9")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    old = program(tmp_path / "old" / "bin" / "nvcc", "echo sm_75; echo sm_80; echo sm_86; echo sm_90").parent.parent
    assert build.cuda_archs(toolkit(tmp_path / "silent")) == ["75", "80", "90", "100", "120"]
    assert build.cuda_archs(old) == ["75", "80", "90"]  # an nvcc that does not know the newest
    program(nvidia_smi, "echo 12.0; echo 9.0; echo 9.0")
    assert build.cuda_archs(old) == ["90", "120"]
    monkeypatch.setenv("LANGEVIN_CUDA_ARCHS", "8.0;90a")
    assert build.cuda_archs(old) == ["80", "90a"]
    monkeypatch.setenv("LANGEVIN_CUDA_ARCHS", "sm_90")
    with pytest.raises(build.BuildError, match="LANGEVIN_CUDA_ARCHS must be capabilities such as '80 90', got 'sm_90'"):
        build.cuda_archs(old)


@pytest.mark.parametrize(
    ("file", "archs", "flags"),
    [
        ("perturb.cu", "75 80 90", ["75,code=[sm_75,sm_80,sm_90,compute_75]"]),
        ("instance_norm_plus.cu", "75 80 90", ["75,code=[sm_75,compute_75]", "80,code=[sm_80,sm_90,compute_80]"]),
        (
            "instance_norm_plus.cu",
            "90 75 90a",
            ["90a,code=sm_90a", "75,code=[sm_75,compute_75]", "90,code=[sm_90,compute_90]"],
        ),
        ("instance_norm_plus_backward.cu", "75", ["75,code=[sm_75,compute_75]"]),
        ("instance_norm_plus_cluster.cu", "75 80 90 100", ["90,code=[sm_90,sm_100,compute_90]"]),
        ("instance_norm_plus_cluster.cu", "75 80", ["75,code=[sm_75,compute_75]", "80,code=[sm_80,compute_80]"]),
    ],
)
def test_what_a_file_is_compiled_for(build, file, archs, flags):
    made = build.gencode_of(Path(file), archs.split())
    assert made == " ".join(f"-gencode arch=compute_{flag}" for flag in flags)


@pytest.mark.parametrize("with_cuda", [False, True])
def test_what_is_built(build, monkeypatch, tmp_path, capfd, with_cuda):
    """The message, the compile commands and the stamp; the compilers themselves are not run."""

    def run(command, **_):
        (Path(command[command.index("-C") + 1]) / "_C.so").touch()
        return SimpleNamespace(returncode=0)

    cuda = toolkit(tmp_path / "cuda")
    monkeypatch.setenv("LANGEVIN_CUDA_ARCHS", "80 90")
    monkeypatch.delenv("LANGEVIN_WERROR", raising=False)
    monkeypatch.setattr(build, "candidate_roots", lambda: iter([cuda] if with_cuda else []))
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build.subprocess, "run", run)
    extension = setuptools.Extension("langevin_ext._C", sources=[])
    command = build.NinjaBuild(setuptools.Distribution({"ext_modules": [extension]}))
    command.build_lib = command.build_temp = str(tmp_path / "lib")
    command.ensure_finalized()
    command.build_extension(extension)
    assert Path(command.get_ext_fullpath("langevin_ext._C")).is_file()
    (folder,) = (
        path for path in (tmp_path / "build").iterdir() if path.name.endswith("-cuda" if with_cuda else "-cpu")
    )
    ninja, stamp = (folder / "build.ninja").read_text(), (folder / "build_info.cpp").read_text()
    assert build.source_hash() in stamp
    coded = "-gencode arch=compute_80,code=[sm_80,sm_90,compute_80]" in ninja
    assert coded == ("-DLV_WITH_CUDA" in ninja) == with_cuda
    assert ("langevin_step.cu.o: nvcc" in ninja) == with_cuda
    said = capfd.readouterr().out
    assert (f"CUDA {cuda} for sm_80, sm_90 and PTX" if with_cuda else "CPU only (no nvcc found)") in said
    assert ("80 90" in stamp) == with_cuda and ("no nvcc found" in stamp) != with_cuda
    assert ninja.count("-Werror") == 3 * with_cuda
    monkeypatch.setenv("LANGEVIN_WERROR", "0")
    command.build_extension(extension)
    lenient = (folder / "build.ninja").read_text()
    assert "Werror" not in lenient and ("-Xptxas -v,-warn-spills -Xcompiler" in lenient) == with_cuda


@pytest.fixture
def sources(tmp_path):
    """A copy of what a build reads."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    ignore = shutil.ignore_patterns("*.so", "__pycache__", "*.safetensors")
    for name in ("csrc", "langevin_ext"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    return tmp_path


def setup_py(sources, **environment):
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=sources,
        text=True,
        capture_output=True,
        env={**os.environ, "LANGEVIN_CUDA": "0", **environment},
    )


def test_a_missing_compiler_fails_with_one_sentence(sources):
    result = setup_py(sources, CXX="no-such-compiler")
    assert result.returncode != 0 and "Traceback" not in result.stderr
    sentence = result.stderr.strip().splitlines()[-1]
    assert sentence.startswith("langevin_ext: no C++ compiler: 'no-such-compiler' is not on PATH")
    assert "LANGEVIN_NO_NATIVE=1" in sentence


def test_a_failing_compiler_fails_with_the_ways_out(sources):
    result = setup_py(sources, CXX="false")
    assert result.returncode != 0 and "Traceback" not in result.stderr
    assert "did not compile" in result.stderr and "LANGEVIN_NO_NATIVE=1" in result.stderr.splitlines()[-1]


def test_no_native_installs_without_the_core(sources):
    result = setup_py(sources, LANGEVIN_NO_NATIVE="1", CXX="no-such-compiler")
    assert result.returncode == 0, result.stderr
    assert "installing without the native core" in result.stderr
    assert not list((sources / "langevin_ext").glob("_C*"))


def test_the_stamp_is_that_of_the_sources(build):
    assert _native._why_stale(build.source_hash()) == ""
    assert "the native core is stale, csrc has changed since; run 'pip install -e .'" in _native._why_stale("other")


@pytest.mark.parametrize(
    ("core", "reason"),
    [
        (None, "the native core is not installed; run 'pip install -e .'"),
        (SimpleNamespace(build_info=lambda: {"source_hash": "other"}), "the native core is stale"),
        (SimpleNamespace(build_info=lambda: {"source_hash": "right"}), "cannot hand its tensors over"),
    ],
)
def test_reasons_not_to_load(monkeypatch, core, reason):
    monkeypatch.delattr(langevin_ext, "_C", raising=False)
    monkeypatch.setitem(sys.modules, "langevin_ext._C", core)
    if core is not None:
        monkeypatch.setattr(langevin_ext, "_C", core, raising=False)
        if core.build_info()["source_hash"] == "right":  # but without `init`, as if torch were too old
            monkeypatch.setattr(_native, "_why_stale", lambda built_from: "")
    module, said = _native._load()
    assert module is None and reason in said


WITHOUT_CORE = """
import json, sys, warnings

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "langevin_ext._C":
            raise ImportError("libgone.so.1: cannot open shared object file")

sys.meta_path.insert(0, Blocked())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import langevin_ext
    z = langevin_ext.noise.normal((2, 3), seed=1)
    x = langevin_ext.ops.langevin_step(z.clone(), -z, 0.5, 0.0, seed=1, step=0)
said = [str(w.message) for w in caught if w.category is langevin_ext.SlowerPathWarning]
print(json.dumps([said, (x / z).tolist(), langevin_ext.backend_info()]))
"""


def test_without_the_core_all_runs_on_torch_with_one_warning():
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_CORE],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert result.returncode == 0, result.stderr
    said, ratio, info = json.loads(result.stdout)
    assert len(said) == 1 and "does not load (libgone.so.1" in said[0] and "runs on plain torch" in said[0]
    assert ratio == [[0.5] * 3] * 2
    assert not info["native"] and info["native_reason"] in said[0]
    assert not info["cuda_runs"] and not info["cuda_built"] and info["cuda_built_reason"] == info["native_reason"]


def test_backend_info_explains_what_does_not_run():
    info = langevin_ext.backend_info()
    for what in ("native", "cuda_built", "cuda_runs"):
        reason = info[f"{what.removesuffix('_runs')}_reason"]
        assert info[what] == (reason == ""), (what, reason)
    assert info["cuda_built"] == bool(info["cuda_archs"])


@pytest.mark.parametrize(("initialized", "index"), [(True, 3), (False, 0)])
def test_backend_info_asks_about_the_gpu_in_use(monkeypatch, initialized, index):
    monkeypatch.setattr(_native.torch.cuda, "is_initialized", lambda: initialized)
    monkeypatch.setattr(_native.torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(_native, "why_no_cuda", "GPU {}".format)
    assert langevin_ext.backend_info()["cuda_reason"] == f"GPU {index}"


def test_a_gpu_without_kernels_warns_once(monkeypatch):
    reasons = ["no kernel image is available"]
    monkeypatch.setattr(_native, "why_no_cuda", lambda index=0: reasons[0])
    monkeypatch.setattr(_native, "_run", set())
    _native._warn_slower.cache_clear()
    device = SimpleNamespace(type="cuda", index=None)
    try:
        if _native._core is None:
            assert _native.core(device) is None
            return
        with pytest.warns(langevin_ext.SlowerPathWarning, match="cuda tensors run on plain torch: no kernel image"):
            assert _native.core(device) is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert _native.core(device) is None
        reasons[0] = ""  # a GPU that was full
        assert _native.core(device) is _native._core
        reasons[0] = "nobody asks again"
        assert _native.core(device) is _native._core
    finally:
        _native._warn_slower.cache_clear()
