"""Forward time of our NCSN against the released network's eager computation (official.py) and that one compiled.

python benchmarks/network.py --size 32 --batch 4 [--compile]
"""

import argparse
import pathlib

import torch
from official import official_forward
from timing import append_rows, interleaved, machine

from langevin_ext.models import NCSN

RESULTS = pathlib.Path(__file__).resolve().parent / "results" / "network.jsonl"
TOLERANCE = 1e-5  # relative to the largest output


def main():
    """Checks equality, times, appends the rows and prints the table."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = NCSN((args.channels, args.size, args.size), args.ngf).to(args.device).eval()
    x = torch.rand(args.batch, *model.shape, device=args.device)
    level = torch.arange(args.batch, device=args.device) % len(model.sigmas)
    fns, errors = implementations(model, x, level, args.compile), {}
    with torch.inference_mode():
        expected = fns["official eager"]()
        for name, fn in fns.items():
            errors[name] = ((fn() - expected).abs().max() / expected.abs().max()).item()
            if not errors[name] <= TOLERANCE:
                raise SystemExit(f"network: {name} differs from the official computation by {errors[name]:.1e}")
        times = interleaved(fns, args.repeats, args.warmup, args.device)
    rows = make_rows(args, times, errors)
    append_rows(args.output, rows)
    print_table(rows)


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ngf", type=int, default=128)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="also torch.compile of the official one (minutes)")
    parser.add_argument("--output", default=str(RESULTS))
    return parser.parse_args()


def implementations(model, x, level, compiled):
    """{name: forward without arguments}."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    fns = {
        "official eager": lambda: official_forward(state, x, level),
        "langevin_ext": lambda: model(x, level),
    }
    if compiled:
        forward = torch.compile(official_forward)
        fns["official torch.compile"] = lambda: forward(state, x, level)
    return fns


def make_rows(args, times, errors):
    """One row for each implementation."""
    about = machine(args.device)
    shape = [args.batch, args.channels, args.size, args.size]
    base = times["official eager"].median
    return [
        {
            "benchmark": "network",
            "implementation": name,
            "dtype": "float32",
            "ngf": args.ngf,
            "shape": shape,
            "median_s": time.median,
            "iqr_s": time.iqr,
            "images_per_s": args.batch / time.median,
            "speedup": base / time.median,
            "relative_error": errors[name],
            "repeats": args.repeats,
            **about,
        }
        for name, time in times.items()
    ]


def print_table(rows):
    """The rows as a table."""
    about = rows[0]
    print(
        f"NCSN forward, ngf={about['ngf']}, {tuple(about['shape'])}, float32, {about['device']}, "
        f"{about['threads']} threads, torch {about['torch']}"
    )
    print(f"{'implementation':24} {'median ms':>10} {'IQR ms':>8} {'images/s':>9} {'speed-up':>9} {'rel. error':>10}")
    for row in rows:
        print(
            f"{row['implementation']:24} {1e3 * row['median_s']:10.1f} {1e3 * row['iqr_s']:8.1f} "
            f"{row['images_per_s']:9.1f} {row['speedup']:8.2f}x {row['relative_error']:10.1e}"
        )


if __name__ == "__main__":
    main()
