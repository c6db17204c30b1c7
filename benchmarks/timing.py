"""Bookkeeping of the benchmarks; what they time with is `langevin_ext.benchmarking.timing`."""

import argparse
import json
import pathlib

from langevin_ext.benchmarking.timing import interleaved, machine

__all__ = ["append_rows", "interleaved", "machine", "network_parser", "network_rows", "print_network_rows"]


def append_rows(path, rows):
    """Appends each row, a dict, as one line of JSON; folders are made."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def network_parser(description, output, *, repeats, warmup):
    """The options that the benchmarks of networks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--ngf", type=int, default=128)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--warmup", type=int, default=warmup)
    parser.add_argument("--output", default=str(output), help="JSON lines to which the rows are added")
    return parser


def network_rows(benchmark, args, times, errors, device="cpu"):
    """A row for each implementation of a network, {(name, dtype): time}, against the released one.

    Args:
        benchmark: name of the rows.
        args: namespace with ngf, batch, channels, size and repeats.
        times, errors: by (name, dtype); an error may be missing.
    """
    about, base = machine(device), times["official eager", "float32"].median
    return [
        {
            "benchmark": benchmark,
            "implementation": name,
            "dtype": dtype,
            "ngf": args.ngf,
            "shape": [args.batch, args.channels, args.size, args.size],
            "median_s": time.median,
            "iqr_s": time.iqr,
            "images_per_s": args.batch / time.median,
            "speedup": base / time.median,
            "relative_error": errors.get((name, dtype)),
            "repeats": args.repeats,
            **about,
        }
        for (name, dtype), time in times.items()
    ]


def print_network_rows(what, rows):
    """The rows as a table under a line that says `what` and where they were measured."""
    about = rows[0]
    print(
        f"NCSN {what}, ngf={about['ngf']}, {tuple(about['shape'])}, {about['device']}, {about['threads']} threads, "
        f"torch {about['torch']}"
    )
    print(
        f"{'implementation':26} {'dtype':9} {'median ms':>10} {'IQR ms':>8} {'images/s':>9} {'speed-up':>9} "
        f"{'rel. error':>10}"
    )
    for row in rows:
        error = "" if row["relative_error"] is None else f"{row['relative_error']:.1e}"
        print(
            f"{row['implementation']:26} {row['dtype']:9} {1e3 * row['median_s']:10.1f} {1e3 * row['iqr_s']:8.1f} "
            f"{row['images_per_s']:9.1f} {row['speedup']:8.2f}x {error:>10}"
        )
