"""README's section of measurements, made from the newest rows of benchmarks/results.

python benchmarks/readme_tables.py           writes it into README.md, between its two marks
python benchmarks/readme_tables.py --check   exits with 1 if README.md does not show these rows
"""

import argparse
import json
import pathlib
import sys

from gpu_markdown import table

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- made by benchmarks/readme_tables.py: begin -->\n", "<!-- end -->\n"

KERNELS = {
    "langevin_step": "Langevin step with its noise",
    "perturb": "perturbation with its noise",
    "dsm_loss+gradient": "loss and gradient, noise made again",
    "upsample_bicubic2x": "bicubic upsampling to twice the size",
    "upsample_bicubic2x+noise": "the same with noise",
    "instance_norm_plus+ELU NCHW": "instance norm++ and ELU, NCHW",
    "instance_norm_plus+ELU NHWC": "instance norm++ and ELU, channels-last",
    "instance_norm_plus+5x5 mean NHWC": "instance norm++ and the mean over 5x5 pixels, channels-last",
}
USUAL = (16, 64)  # batch and size of the table; norms are measured at others, too
FORWARD = {
    "official eager": "the released network's computation, eager",
    "official torch.compile": "the same under torch.compile",
    "compile with freezing": "the same under torch.compile with frozen weights",
    "langevin_ext module": "langevin_ext, the module",
    "engine": "langevin_ext, the engine of `sample`",
}
TRAINING = {
    "official eager": "the released network's computation and loss, eager, Adam",
    "langevin_ext": "langevin_ext",
}


def main():
    """Writes the section, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--readme", type=pathlib.Path, default=ROOT / "README.md")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args()
    text = args.readme.read_text(encoding="utf-8")
    wanted = replaced(text, section(args.results))
    if text == wanted:
        return
    if args.check:
        sys.exit("readme_tables: README.md does not show the newest rows; run python benchmarks/readme_tables.py")
    args.readme.write_text(wanted, encoding="utf-8")


def replaced(text, body) -> str:
    """README with `body` between the marks.

    Raises:
        ValueError: there is not exactly one pair of marks.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise ValueError("readme_tables: README must have the two marks once each, in order; put them back")
    before, rest = text.split(BEGIN)
    return before + BEGIN + body + END + rest.split(END)[1]


def section(results) -> str:
    """The tables of kernels, forward pass and training step, and what a GPU has shown."""
    tables = [kernels(read(results / "kernels.jsonl"))]
    tables += [forward(rows) for rows in by_device(read(results / "network.jsonl"))]
    tables += [training(rows) for rows in by_device(read(results / "training.jsonl"))]
    tables.append(gpu(results / "gpu"))
    return "\n\n".join(filter(None, tables)) + "\n"


def read(path) -> list[dict]:
    """The rows of a file of JSON lines, but those with loops for an earlier CPU; none if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if "LANGEVIN_ISA" not in line]


def newest(rows) -> list[dict]:
    """Those of the last row's commit and device."""
    last = rows[-1]
    return [row for row in rows if (row["commit"], row["device"]) == (last["commit"], last["device"])]


def by_device(rows) -> list[list[dict]]:
    """The rows of each device, the one that was measured last first; rows of early commits name no instruction set."""
    names = [row["device"].partition(",")[0] for row in rows]
    return [[row for row, own in zip(rows, names, strict=True) if own == name] for name in dict.fromkeys(names[::-1])]


def where(row) -> str:
    return f"{row['device']}, torch {row['torch'].partition('+')[0]}, commit {row['commit']}, {row['date'][:10]}"


def kernels(rows) -> str:
    """Fused ops beside plain torch, torch.compile and a copy."""
    usual = [row for row in rows if (row["batch"], row["size"]) == USUAL]
    whole = {row["commit"] for row in usual if row["op"] == "langevin_step"}  # others were measured in part
    usual = [row for row in usual if row["commit"] in whole]
    if not usual:
        return ""
    found = {(row["threads"], row["op"], row["implementation"]): row for row in newest(usual)}
    threads = max(key[0] for key in found)
    first = found[threads, "langevin_step", "fused"]
    lines = [
        f"**Kernels** ({where(first)}, {threads} threads, float32; images of {first['batch']} x 3 x {first['size']} x "
        f"{first['size']}, features of {first['batch']} x {first['channels']} x {first['size'] // 2} x "
        f"{first['size'] // 2}):",
        "",
        "| | plain torch | torch.compile | langevin_ext | against plain torch | of a copy's bandwidth |",
        "|---|---|---|---|---|---|",
    ]
    for op, name in KERNELS.items():
        if (threads, op, "fused") not in found:
            continue
        times = {how: found[threads, op, how]["median_us"] for how in ("torch", "compiled", "fused")}
        fused = found[threads, op, "fused"]
        lines.append(
            f"| {name} | {times['torch']:.0f} µs | {times['compiled']:.0f} µs | {times['fused']:.0f} µs | "
            f"{factor(fused['ratio_to_torch'])} | {100 * fused['share_of_copy']:.0f} % |"
        )
    return "\n".join(lines)


def forward(rows) -> str:
    """The network's forward pass, for each batch and number of threads."""
    return by_columns(
        rows,
        FORWARD,
        "**Forward pass** of NCSN with ngf {ngf} at {size} pixels ({where}), images a second and the factor against "
        "the first row; the error is relative to float64:",
        error=True,
    )


def training(rows) -> str:
    """The training step, for each batch and number of threads."""
    return by_columns(
        rows,
        TRAINING,
        "**Training step** of NCSN with ngf {ngf} at {size} pixels ({where}): perturbation, loss, gradient and update, "
        "images a second and the factor against the first row:",
    )


def by_columns(rows, names, title, error=False) -> str:
    """A table of images per second, a column for each (batch, threads), of the newest rows of the largest network."""
    if not rows:
        return ""
    widest = max(row["ngf"] for row in newest(rows))
    chosen = [row for row in newest(rows) if row["ngf"] == widest]
    found = {(row["implementation"], row["dtype"], row["shape"][0], row["threads"]): row for row in chosen}
    columns = sorted({key[2:] for key in found})
    heads = " | ".join(f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}" for batch, threads in columns)
    lines = [
        title.format(ngf=widest, size=chosen[0]["shape"][2], where=where(chosen[-1])),
        "",
        f"| | dtype | {heads} |" + (" error |" if error else ""),
        "|---" * (2 + len(columns) + error) + "|",
    ]
    for name, text in names.items():
        for dtype in dict.fromkeys(key[1] for key in found if key[0] == name):
            cells = [cell(found.get((name, dtype, *column))) for column in columns]
            worst = max(row.get("relative_error") or 0 for key, row in found.items() if key[:2] == (name, dtype))
            lines.append(f"| {text} | {dtype} | {' | '.join(cells)} |" + (f" {worst:.1e} |" if error else ""))
    return "\n".join(lines)


def cell(row) -> str:
    return "" if row is None else f"{row['images_per_s']:.1f} ({factor(row['speedup'])})"


def factor(ratio) -> str:
    """A ratio as text, bold where it is a loss."""
    return f"**{ratio:.2f}x**" if ratio < 0.995 else f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def gpu(folder) -> str:
    """Forward passes, whole runs and training steps of the newest report of a GPU."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    reports = [report for report in reports if report["device"] == "cuda" and not report["quick"]]
    if not reports:
        return "**GPU:** no report has been made yet; see below."
    report = max(reports, key=lambda one: one["date"])
    about = report["machine"]
    lines = [f"**GPU** ({about['device']}, commit {about['commit']}, {report['date'][:10]}):"]
    for one in report["sections"]:
        if one["name"] in ("forward", "sampling", "training"):
            lines += ["", f"*{one['title']}*", "", *table(one["rows"])]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
