"""torch's compiler is not imported with the package, and is told the same as if it were."""

import subprocess
import sys

import torch

from langevin_ext import _compiler


def test_the_import_leaves_torch_s_compiler_alone():
    code = "import sys, langevin_ext; print(sorted(name for name in sys.modules if name.startswith('torch._dynamo')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_constant_results_are_marked_as_torch_marks_them():
    ours = _compiler.assume_constant_result(lambda: 1)
    assert vars(ours) == vars(torch.compiler.assume_constant_result(lambda: 1)) != {}
