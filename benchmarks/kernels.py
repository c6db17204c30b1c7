"""Each fused op against plain torch and against torch.compile of the same formula, beside a copy's bandwidth.

python benchmarks/kernels.py [--size 64] [--batch 16] [--no-compile] [--op ELU]

Every implementation is checked against the others first, then all are timed in turn. `bound` is the time in which a
copy moves the bytes that the op must read and write at least; `share` is that time over the measured one. `ratio` is
the plain-torch time over the measured one.
"""

import argparse
import pathlib
import warnings
from functools import partial

import torch
from timing import append_rows, interleaved, machine

from langevin_ext import backend_info
from langevin_ext.benchmarking.kernels import cases, copy_of, norm_into_memory, pooled_norm

RESULTS = pathlib.Path(__file__).resolve().parent / "results" / "kernels.jsonl"


def main():
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    if not backend_info()["native"]:
        raise SystemExit(f"kernels: the native core does not run: {backend_info()['native_reason']}")
    rows = []
    with torch.inference_mode():
        for name, make in all_cases(args.batch, args.size, args.channels, args.device).items():
            if not any(part in name for part in args.op or [""]):
                continue
            case = make()
            case.check()
            fns = dict(case.calls)
            if not args.no_compile:
                fns["compiled"] = compiled(fns["torch"])
            fns["copy"] = copy_of(case.moved, args.device)
            times = interleaved(fns, args.repeats, args.warmup, args.device)
            rows += [row(args, name, implementation, case.moved, times) for implementation in fns]
    if not rows:
        raise SystemExit(f"kernels: op must be part of a name, got {args.op}")
    append_rows(args.output, rows)
    print_table(rows)


def all_cases(batch, size, channels, device):
    """Those of every op, and of what an engine alone asks of the native core."""
    features = (batch, channels, size // 2, size // 2)
    return cases(batch, size, channels, device) | {
        "instance_norm_plus+5x5 mean NHWC": partial(pooled_norm, features, device, channels_last=True),
        "engine's norm+ELU NCHW": partial(norm_into_memory, features, device),
        "engine's norm+ELU NHWC": partial(norm_into_memory, features, device, channels_last=True),
    }


def compiled(fn):
    """torch.compile of a call; what it closes over are its inputs."""
    warnings.filterwarnings("ignore", module="torch.*")
    return torch.compile(fn, dynamic=False)


def row(args, op, implementation, moved, times):
    seconds, bound = times[implementation].median, times["copy"].median
    return {
        "op": op,
        "implementation": implementation,
        "dtype": "float32",
        "batch": args.batch,
        "size": args.size,
        "channels": args.channels,
        "median_us": 1e6 * seconds,
        "iqr_us": 1e6 * times[implementation].iqr,
        "gb_per_s": moved / seconds / 1e9,
        "share_of_copy": bound / seconds,
        "ratio_to_torch": times["torch"].median / seconds,
        **machine(args.device),
    }


def print_table(rows):
    print(f"{rows[0]['device']}, {rows[0]['threads']} threads, torch {rows[0]['torch']}, {rows[0]['commit']}")
    print(f"{'op':32} {'':24} {'median us':>10} {'IQR':>8} {'GB/s':>7} {'share':>6} {'ratio':>6}")
    for r in rows:
        print(
            f"{r['op']:32} {r['implementation']:24} {r['median_us']:10.1f} {r['iqr_us']:8.1f} {r['gb_per_s']:7.2f} "
            f"{r['share_of_copy']:6.2f} {r['ratio_to_torch']:6.2f}"
        )


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="of the images; features are half as large")
    parser.add_argument("--channels", type=int, default=128, help="of the features")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--op", action="append", metavar="PART", help="only ops with this in their name, or these")
    parser.add_argument("--output", default=str(RESULTS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
