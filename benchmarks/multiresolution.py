"""A whole multi-resolution run against the sum of its parts: evaluations times the time of a step, plus the upsampling.

The run is LRS-2-up-HRS-9 of Block, Mroueh, Rakhlin and Ross 2020 (arXiv:2006.11166, table 1) on untrained networks,
whose steps cost what those of trained ones do. Parts are timed in turn with the whole run.

python benchmarks/multiresolution.py --size 32 --batch 16
"""

import argparse
import pathlib

import torch
from timing import append_rows, interleaved, machine

from langevin_ext import plan, sample
from langevin_ext.models import NCSN
from langevin_ext.noise import INIT, uniform
from langevin_ext.samplers.engines import engines_of
from langevin_ext.samplers.loop import run_stage
from langevin_ext.samplers.table import Run, Upsample
from langevin_ext.samplers.upsampling import upsampled

RESULTS = pathlib.Path(__file__).resolve().parent / "results" / "multiresolution.jsonl"


def main():
    """Checks that the parts make the whole, times, appends the rows and prints the table."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    sizes = (args.size // 2, args.size)
    models = [NCSN((args.channels, size, size), args.ngf).to(args.device).eval() for size in sizes]
    made = plan(models, args.scheme, args.batch, **settings(args))
    runners = engines_of(models, "auto", models[0].sigmas.device, torch.float32, args.batch)[0]  # as `sample` does
    with torch.inference_mode():
        fns, counts = parts(args, runners, made)
        check(args, models, runners, made)
        fns["whole run"] = lambda: sample(models, args.scheme, args.batch, progress=False, **settings(args))
        times = interleaved(fns, args.repeats, args.warmup, args.device, flush=False)
    rows = make_rows(args, made, times, counts)
    append_rows(args.output, rows)
    print_table(rows)


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scheme", default="LRS-2-up-HRS-9")
    parser.add_argument("--ngf", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--size", type=int, default=32, help="high resolution, at least 16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps-each", type=int, default=10, help="Langevin steps per level (100 in the paper)")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", default=str(RESULTS))
    return parser.parse_args()


def settings(args):
    """Of the run."""
    return {"batch_size": args.batch, "n_steps_each": args.steps_each, "denoise": False, "upsample": "bicubic"}


def parts(args, runners, made):
    """{name: one level, or an upsampling, of a batch} of all that the run consists of, and how many of each it has."""
    fns, counts = {}, {}
    for stage in made.stages:
        size = made.sizes[stage.model]
        if isinstance(stage, Upsample):
            low = torch.rand(args.batch, *made.shapes[stage.model - 1], device=args.device)
            name, count = f"upsampling to {size}", 1
            fns[name] = lambda x=low, up=stage: upsampled(x, up, "bicubic", seed=0, first=0)
        else:
            level = Run(stage.model, stage.rows[: args.steps_each])
            x = torch.rand(args.batch, *made.shapes[stage.model], device=args.device)
            name, count = f"{args.steps_each} steps at {size}", len(stage.level_ends)
            fns[name] = lambda x=x, run=level: run_stage(run, runners[run.model], x.clone(), seed=0, first=0)
        counts[name] = counts.get(name, 0) + count
    return fns, counts


def check(args, models, runners, made):
    """The stages one after another must be the run, bit for bit."""
    first = made.shapes[made.stages[0].model]
    x = uniform((args.batch, *first), 0, stream=INIT, device=args.device)
    for stage in made.stages:
        if isinstance(stage, Upsample):
            x = upsampled(x, stage, "bicubic", seed=0, first=0)
        else:
            x = run_stage(stage, runners[stage.model], x, seed=0, first=0)
    if not torch.equal(x, sample(models, args.scheme, args.batch, progress=False, **settings(args))):
        raise SystemExit(f"multiresolution: the stages of {args.scheme} are not the run")


def make_rows(args, made, times, counts):
    """A row for each part and one for the whole run, beside what the parts predict."""
    about = machine(args.device)
    predicted = sum(count * times[name].median for name, count in counts.items())
    rows = []
    for name, time in times.items():
        whole = name not in counts
        rows.append(
            {
                "benchmark": "multiresolution",
                "scheme": made.scheme,
                "part": name,
                "count": 1 if whole else counts[name],
                "dtype": "float32",
                "ngf": args.ngf,
                "shape": [args.batch, args.channels, args.size, args.size],
                "evaluations": made.evaluations,
                "median_s": time.median,
                "iqr_s": time.iqr,
                "predicted_s": predicted if whole else None,
                "measured_to_predicted": time.median / predicted if whole else None,
                "repeats": args.repeats,
                **about,
            }
        )
    return rows


def print_table(rows):
    """The rows as a table."""
    about = rows[0]
    print(
        f"{about['scheme']}, NCSN ngf={about['ngf']}, {tuple(about['shape'])}, {about['device']}, "
        f"{about['threads']} threads, torch {about['torch']}"
    )
    print(f"{'part':24} {'count':>6} {'median ms':>10} {'IQR ms':>8} {'total ms':>10}")
    for row in rows:
        total = 1e3 * row["count"] * row["median_s"]
        print(
            f"{row['part']:24} {row['count']:6} {1e3 * row['median_s']:10.2f} {1e3 * row['iqr_s']:8.2f} {total:10.1f}"
        )
    whole = rows[-1]
    print(f"sum of the parts {1e3 * whole['predicted_s']:.1f} ms, whole run {whole['measured_to_predicted']:.4f} of it")


if __name__ == "__main__":
    main()
