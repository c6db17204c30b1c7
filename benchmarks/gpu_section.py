"""One section of the GPU report, in the process that `gpu_report` gives it.

python benchmarks/gpu_section.py NAME --device cuda --folder FOLDER [--quick] [--no-build]

The result is FOLDER/NAME.json, written again after each row.
"""

import argparse
import importlib
import os
import pathlib
import sys
import time

from gpu_common import LIMIT, SPARE, Failed, Result, Setting, Skipped, sentence

BEGAN = time.monotonic()

MODULES = {
    "machine": "gpu_checks",
    "build": "gpu_checks",
    "noise": "gpu_checks",
    "tests": "gpu_checks",
    "sanitizers": "gpu_sanitizers",
    "ceilings": "gpu_kernels",
    "kernels": "gpu_kernels",
    "norms": "gpu_norms",
    "convolutions": "gpu_norms",
    "forward": "gpu_forward",
    "sampling": "gpu_runs",
    "training": "gpu_runs",
}


def main(arguments=None) -> int:
    """Runs the section; 1 if it failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MODULES)
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-build", action="store_true")
    args = parser.parse_args(arguments)
    result = Result(args.folder / f"{args.name}.json")
    result.write("running")
    ends = BEGAN + float(os.environ.get(LIMIT, "inf")) - SPARE
    setting = Setting(args.device, args.quick, args.folder, args.no_build, ends)
    try:
        getattr(importlib.import_module(MODULES[args.name]), args.name)(result, setting)
    except Skipped as reason:
        result.write("skipped", str(reason))
        return 0
    except Failed as reason:
        result.write("failed", str(reason))
        return 1
    except Exception as error:
        result.write("failed", sentence(error))
        raise
    wrong = sum("wrong" in row for row in result.rows)
    result.write("failed" if wrong else "passed", f"wrong rows: {wrong}" if wrong else "")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
