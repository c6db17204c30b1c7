"""`table`: one of the paper's tables on models of one's own."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import numpy as np

from .. import __version__, _native, _progress, sampling
from .._files import atomic_path, remove_temporaries
from .._lock import NAME as LOCK
from .._lock import locked
from ..metrics import PixelFeatures
from ..samplers import inputs
from ..samplers.report import settings_of
from . import figures
from .distances import Distances, exact_distances, references
from .notes import device_name, notes, upsampler_name
from .report import FILES, Row, Table
from .shared_runs import SharedRuns
from .tables import HRS, LEVELS, PaperTable, paper_table
from .timing import UNIT, WholeRuns, by_parts, saved_seconds, whole_is_cheap

PARTS, SAMPLES = "parts", "samples"  # folders: what an unfinished table has so far; the samples of each scheme
REPLICATES, ROUNDS = 20, 3  # of the bootstrap; whole runs of each scheme


def table(
    number,
    low,
    high,
    *,
    n=100,
    samples=10_000,
    reference=None,
    features=None,
    seed=0,
    n_steps_each=100,
    eps=None,
    denoise=False,
    upsample="bicubic",
    batch_size=100,
    device=None,
    time_rows=None,
    out=None,
    progress=True,
    provenance=None,
) -> Table:
    """One of the four tables of Block, Mroueh, Rakhlin and Ross 2020 (arXiv:2006.11166), on models of one's own.

    Every scheme of the table is run; what several have in common from the start on is run once, and each has the
    samples of `sample(models, scheme, samples, ...)`, bit for bit. Seconds are measured and compared with the additive
    model, evaluations times the seconds of one step; the samples are compared with the data of their resolution.

    Args:
        number: 1 to 4.
        low, high: models as for `sample`, high with twice the height and width of low, ten noise levels each.
        n: images that the seconds are for.
        samples: samples of each scheme that the distances are of.
        reference: (low, high), each an `ImageDataset`, images (n, C, H, W) or `metrics.Statistics`; None for exact
            scores of Gaussian data, which are compared with their law.
        features: images -> (n, D) with a `name`, such as `metrics.ClassifierFeatures`; pixels by default.
        seed: integer in [0, 2^64).
        n_steps_each, eps, upsample, device: as for `sample`.
        denoise: end each scheme with a denoising step, which the paper does not.
        batch_size: images at a time.
        time_rows: True: time whole runs of n images of each scheme, the median of three in turn; False: add up the
            times of its levels in the shared runs; None: whole runs where they add at most a tenth to the work.
        out: folder for the samples, tables and pictures, new or empty; or that of the same table when it was stopped,
            which is continued. None writes nothing.
        progress: show a bar, or a line a minute where stderr is not a terminal; `out` has a status.json in any case.
        provenance: dict for the record, what the models are for example.

    Returns:
        `Table`. The samples depend on the seed, the models and the settings of the schemes alone.

    Raises:
        ValueError, TypeError: an argument is wrong, or `out` holds something else.
        FloatingPointError: a state is not finite.
    """
    paper, features = paper_table(number), PixelFeatures() if features is None else features
    n, samples = inputs.integer("n", n, 1), inputs.integer("samples", samples, 2)
    batch_size = inputs.integer("batch_size", batch_size, 1)
    settings = {"seed": seed, "batch_size": batch_size, "n_steps_each": n_steps_each, "eps": eps}
    settings |= {"denoise": denoise, "upsample": upsample, "device": device}
    shared = shared_runs(paper, low, high, samples, **settings)
    compared = references(reference, shared.jobs[0].models, features)
    with _folder(out) as folder:
        parts = folder / PARTS
        status = None if out is None else folder / _progress.NAME
        with _progress.Progress(shared.steps, f"table {number}", "step", shown=progress, status=status) as bar:
            records = shared.run(parts, bar)
            if time_rows or (time_rows is None and whole_is_cheap(shared, n, ROUNDS)):
                whole = WholeRuns(shared.jobs[0].models, paper.schemes, n, ROUNDS, **settings)
                bar.extend(whole.steps)
                measured, predicted, units = whole.run(parts / "times.safetensors", bar)
                timing = {"how": "whole runs", "rounds": ROUNDS}
            else:
                measured, predicted, units = by_parts(shared, records, n)
                timing = {"how": "parts"}
        timing |= {"n": n, "batch_size": min(batch_size, n if "rounds" in timing else samples), "units": units}
        distances = Distances(parts / "distances.json", features, REPLICATES, seed)
        rows = _rows(paper, shared, parts, measured, predicted, distances, compared)
        record = {
            "settings": _settings(shared, features, compared),
            "sharing": _sharing(shared, records),
            "timing": timing,
            "provenance": _provenance(shared) | (provenance or {}),
        }
        result = Table(number, paper.title, rows, notes(paper, rows, **record), **record)
        if out is not None:
            _write(result, shared, records, folder)
    return result


def shared_runs(paper: PaperTable, low, high, samples, **settings) -> SharedRuns:
    """The schemes of a table, laid out; see `table` for the arguments."""
    models = [low, high]
    levels = [len(model.sigmas) if hasattr(model, "sigmas") else LEVELS for model in models]  # prepare says what lacks
    if levels != [LEVELS, LEVELS]:
        raise ValueError(
            f"table: arguments low and high must have {LEVELS} noise levels, which the paper's names count, got "
            f"{levels[0]} and {levels[1]}"
        )
    return SharedRuns(models, paper.schemes, samples, **settings)


def outline(number, low, high, *, samples=10_000, denoise=False, **settings) -> str:
    """What `table` will run, in words, with the seconds that the shared runs will take; arguments as for `table`."""
    paper, settings = paper_table(number), settings | {"denoise": denoise}
    shared = shared_runs(paper, low, high, samples, **settings)
    job = shared.jobs[0]
    units = sampling.plan(job.models, UNIT, samples, measure=True, **settings).unit_seconds or {}
    ups = [f"upsample {job.plan.sizes[s.model]}" for part in shared.parts for s in part.stages if not s.rows]
    seconds = sum(units[size] * count for size, count in shared.distinct.items()) + sum(units[name] for name in ups)
    width = max(map(len, paper.schemes))
    lines = [f"table {number} of arXiv:2006.11166, {paper.title}: {samples} samples of {len(paper.rows)} schemes"]
    for row, one in zip(paper.rows, shared.jobs, strict=True):
        counts = ", ".join(f"{count} evaluations at {size}" for size, count in one.plan.evaluations.items() if count)
        lines.append(
            f"  {row.scheme:{width}}  {counts}; in the paper FID {row.fid}, {row.ratio:.3f} of the time of HRS"
        )
    both = (", ".join(f"{count} at {size}" for size, count in c.items()) for c in (shared.distinct, shared.separate))
    lines.append("  with their beginnings shared {} evaluations per sample, separately {}".format(*both))
    return "\n".join([*lines, f"  about {job.plan.batches * seconds:.3g} s, in batches of {job.plan.batch_size}"])


@contextlib.contextmanager
def _folder(out):
    """The folder to work in, `out` or a temporary one, with a folder for parts in it."""
    if out is None:
        with tempfile.TemporaryDirectory() as temporary:
            (Path(temporary) / PARTS).mkdir()
            yield Path(temporary)
        return
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "table: argument out"):
        shutil.rmtree(folder / f".{PARTS}", ignore_errors=True)  # of a process that was killed while it cleared up
        for part in (folder, folder / PARTS, folder / SAMPLES):
            remove_temporaries(part)  # or while it wrote
        names = {path.name for path in folder.iterdir()} - {LOCK, _progress.NAME}
        strange = {name for name in names if name not in (PARTS, SAMPLES, *FILES) and not name.endswith(".png")}
        if strange or (names and PARTS not in names):
            raise ValueError(
                f"table: argument out must be a new or empty folder, or that of a table that was stopped, got {folder},"
                " which holds " + ("other files" if strange else "a finished one")
            )
        (folder / PARTS).mkdir(exist_ok=True)
        yield folder


def _rows(paper, shared, parts, measured, predicted, distances, compared) -> list[Row]:
    exact = exact_distances(shared.jobs, distances.features)
    base = measured[paper.schemes.index(HRS)]
    rows = []
    for index, (printed, job) in enumerate(zip(paper.rows, shared.jobs, strict=True)):
        reference = compared[job.plan.output]
        distance, deviation = distances.measure(shared.samples(parts, index), reference)
        rows.append(
            Row(
                printed.scheme,
                job.plan.evaluations,
                measured[index],
                predicted[index],
                measured[index] / base,
                printed.seconds,
                printed.ratio,
                distance,
                deviation,
                reference.label,
                exact[index],
                printed.fid,
            )
        )
    return rows


def _settings(shared, features, compared) -> dict:
    job = shared.jobs[0]
    own = {name: value for name, value in settings_of(job, None).items() if name not in ("scheme", "shape", "snapshot")}
    return own | {
        "upsample": upsampler_name(job.upsample),
        "shapes": [list(shape) for shape in job.plan.shapes],
        "features": getattr(features, "name", type(features).__name__),
        "weights": getattr(features, "sha256", None),
        "references": [one.label for one in compared],
        "bootstrap": REPLICATES,
    }


def _sharing(shared, records) -> dict:
    spent, alone = saved_seconds(shared, records)
    counts = {"evaluations": shared.distinct, "evaluations_separately": shared.separate}
    return counts | {"seconds": spent, "seconds_separately": alone}


def _provenance(shared) -> dict:
    device = shared.jobs[0].device
    return {
        "version": __version__,
        "backend": f"{'native' if _native.core(device) else 'reference'} on {device}",
        "device": device_name(device),
        "core": _native.backend_info(),
    }


def _write(result, shared, records, folder) -> None:
    """The samples, the pictures and the tables; then the parts, which are in them, are deleted."""
    (folder / SAMPLES).mkdir(exist_ok=True)
    seed = shared.jobs[0].seed
    for index, row in enumerate(result.rows):
        x = shared.samples(folder / PARTS, index)
        with atomic_path(folder / SAMPLES / f"{row.scheme}.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, images=x.numpy(), seed=seed, first=shared.jobs[0].first)
    figures.quality(result, folder / "quality.png")
    for index, row in enumerate(result.rows):
        if row.scheme in figures.DRAWN and shared.jobs[index].plan.shape[0] in (1, 3):
            figures.levels(shared, records, index, folder / f"trajectory-{row.scheme}.png")
    result.write(folder)
    done = (folder / PARTS).rename(folder / f".{PARTS}")  # at once: half of the parts would look like a stopped table
    shutil.rmtree(done)
