"""What has to be equal for samples to belong together, and what a merged run says of itself."""

import math

IDENTITY = (  # of the settings of a run; the number of samples, the batch size and the device are none of it
    "scheme",
    "seed",
    "shape",
    "sigmas",
    "eps",
    "n_steps_each",
    "denoise",
    "init",
    "known",
    "mask",
    "options",
    "dtype",
    "upsample",
)
STATISTICS = ("score_norm", "mean", "nonfinite")
NAMED = 4  # ranges in a message


def identity(settings, model) -> dict:
    """What the samples depend on beside their index.

    Args:
        settings: as `sample` reports them, or settings.json.
        model: dictionary, or list of them, with `sha256` or `fingerprint`.
    """
    models = model if isinstance(model, list) else [model]
    hashes = [facts.get("sha256") or facts.get("fingerprint") for facts in models]
    return {name: settings[name] for name in IDENTITY if name in settings} | {"model": hashes}


def difference(now, then):
    """(name, value now, value then) of the first thing that differs, or None."""
    for name in sorted(now.keys() | then.keys()):
        if now.get(name) != then.get(name):
            return name, now.get(name), then.get(name)
    return None


def spans(ranges) -> str:
    """Half-open ranges in words, neighbours joined: "0 to 9, 20 to 29"."""
    joined: list[list[int]] = []
    for low, high in sorted(ranges):
        if joined and joined[-1][1] == low:
            joined[-1][1] = high
        else:
            joined.append([low, high])
    words = [f"{low} to {high - 1}" if high - low > 1 else str(low) for low, high in joined]
    more = len(words) - NAMED
    return ", ".join(words[:NAMED]) + (f" and {more} more ranges" if more > 0 else "")


def combined(parts) -> dict:
    """seconds, images_per_second and diagnostics over several runs.

    Args:
        parts: list of (n, info), info with `seconds` and `diagnostics` as `sample` reports them.
    """
    total, seconds = sum(n for n, _ in parts), sum(info["seconds"] for _, info in parts)
    columns = zip(*(info["diagnostics"] for _, info in parts), strict=True)
    return {
        "seconds": seconds,
        "images_per_second": total / max(seconds, 1e-9),
        "diagnostics": [_over([(n / total, row) for (n, _), row in zip(parts, rows, strict=True)]) for rows in columns],
    }


def _over(rows):
    """One level's diagnostics over runs of the given weights; the variance is that within and between the runs."""
    value = {name: math.fsum(weight * row[name] for weight, row in rows) for name in STATISTICS}
    within = math.fsum(weight * row["variance"] for weight, row in rows)
    between = math.fsum(weight * (row["mean"] - value["mean"]) ** 2 for weight, row in rows)
    return {**rows[0][1], **value, "variance": within + between}
