"""The sentences under a table: what was measured how, and what can be compared with the paper."""

import torch

from ..benchmarking.timing import cpu_name
from .tables import STEPS_EACH


def notes(paper, rows, *, settings, sharing, timing, provenance) -> list[str]:
    """A sentence for each thing that a reader of the numbers must know.

    Args:
        paper: `PaperTable`.
        rows: list of `Row`.
        settings, sharing, timing, provenance: as in `Table`.
    """
    return [
        _schemes(settings),
        *_upsampling(paper, settings),
        *_seconds(timing, provenance),
        *_distances(rows, settings),
        *_paper(paper, rows),
        _saved(sharing),
    ]


def _schemes(settings):
    each = " and ".join(dict.fromkeys(map(str, _list(settings["n_steps_each"]))))
    eps = " and ".join(dict.fromkeys(f"{value:g}" for value in _list(settings["eps"])))
    denoised = "with" if settings["denoise"] else "without"
    more = "" if each == str(STEPS_EACH) else f" ({STEPS_EACH} in the paper)"
    return f"{each} steps per level{more}, eps {eps}, {denoised} a denoising step, seed {settings['seed']}."


def _list(value):
    return value if isinstance(value, list) else [value]


def _upsampling(paper, settings):
    own = settings["upsample"]
    return [f"Upsampling: {own}" + ("." if own == paper.upsampler else f"; the paper's table has {paper.upsampler}.")]


def _seconds(timing, provenance):
    n, batch = timing["n"], timing["batch_size"]
    units = ", ".join(
        f"{seconds:.3g} s for "
        + (f"an {name.replace('upsample', 'upsampling to')}" if " " in name else f"a step at {name}")
        for name, seconds in timing["units"].items()
    )
    if timing["how"] == "parts":
        how = "the times of the scheme's own levels in the shared runs, added up"
        caveat = " Both come from the same levels: whole runs (--time-rows) test the prediction, these do not."
    else:
        how, caveat = f"whole runs of each scheme, the median of {timing['rounds']} in turn with the others", ""
    return [
        f"Seconds for {n} images on {provenance['device']} ({provenance['backend']}, "
        f"{provenance['core']['threads']} threads): {how}.",
        f"Predicted: evaluations and upsamplings times what one takes, batches of {batch}: {units} (medians).{caveat}",
    ]


def _distances(rows, settings):
    labels = dict.fromkeys(row.reference for row in rows)
    lines = [
        f"Distance: Frechet distance in {settings['features']}, {settings['n']} samples of each scheme against "
        f"{'; '.join(labels)} (each scheme at its own resolution). Only comparable at equal counts and features.",
        f"+-: standard deviation of {settings['bootstrap']} bootstrap replicates of the samples.",
    ]
    if any(row.exact is not None for row in rows):
        lines.append(
            "Exact law: the distance of the scheme's output law itself; finite samples are a little farther away."
        )
    return lines


def _paper(paper, rows):
    lines = [
        "The paper's FIDs are of CelebA at 64x64 (LRS: 32x32), 10,000 samples, larger networks: other images in other "
        "features, comparable in their order at most."
    ]
    if any(row.paper_seconds is None for row in rows):
        lines.append("~: not printed in the paper, but given by the linear model of its table 1.")
    return lines


def _saved(sharing):
    run, separate = (
        ", ".join(f"{count} at {size}" for size, count in sharing[name].items())
        for name in ("evaluations", "evaluations_separately")
    )
    spent, alone = sharing["seconds"], sharing["seconds_separately"]
    share = 100 * (1 - spent / alone) if alone else 0.0
    return (
        f"Beginnings that schemes share were run once: {run} evaluations per sample instead of {separate}; "
        f"{spent:.3g} s instead of {alone:.3g} s, {share:.0f} % saved."
    )


def upsampler_name(upsample) -> str:
    """What a table calls an upsampler."""
    return upsample if isinstance(upsample, str) else getattr(upsample, "__name__", type(upsample).__name__)


def device_name(device) -> str:
    """The GPU's name, or the processor's where the system tells it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
