"""`multi-measurement`: two far modes by sequential and by joint sampling of many noisy measurements."""

import math

import torch
from tqdm import tqdm

from .. import sampling
from .._files import write_figure
from ..metrics import mode_fractions
from ..scores import GaussianMixture
from .findings import Report, above, below, close

NAME = "multi-measurement"
TITLE = "Sequential and joint multi-measurement sampling of two far modes"
SOURCE = "Saremi, Park & Bach 2023, arXiv:2305.19473: components at +-3 (1 ... 1)"

# Weights .8 and .2 and unit width are our choice, the source leaves them open. In two dimensions all conditional laws
# of the measurements are log-concave from sigma^2 = 9 d - tau^2 = 17 on.
SIGMA, WEIGHTS = math.sqrt(17.0), (0.8, 0.2)
MEANS = torch.tensor([[3.0, 3.0], [-3.0, -3.0]])
DELTA, STEPS, JOINT_STEPS = 0.05, 200, 1600
MEASUREMENTS = (1, 4, 16, 64)
EXACT = {1: 0.83378, 4: 0.80226, 16: 0.79999, 64: 0.79999}  # P(+) of the jump from exact measurements, by quadrature
CHAINS = 4000


def run(out=None, *, size=1.0, seed=0, progress=True) -> Report:
    """Weights and width of the modes for several numbers of measurements; arguments as for `experiment`."""
    chains, most = max(400, int(CHAINS * size)), 64 if size > 0.3 else 16
    counts = [m for m in MEASUREMENTS if m <= most]
    found = {}
    with tqdm(total=2 * len(counts), disable=not progress, desc=NAME, unit="run") as bar:
        for m in counts:
            for scheme, steps, n in (("sms", STEPS, chains), ("jms", JOINT_STEPS, chains // 2)):
                bar.set_postfix_str(f"{scheme}, m = {m}")
                found[scheme, m] = draw(scheme, m, steps, n, seed)
                bar.update()
    fraction = {key: plus(x) for key, x in found.items()}
    findings = [
        # steps of delta shift the weight by about .008, the same for m = 1, which the tolerance takes in
        close(f"weight of the mode at +, SMS, m = {m}", p, math.hypot(error, 0.004), EXACT[m])
        for (scheme, m), (p, error) in fraction.items()
        if scheme == "sms"
    ]
    findings += width(found["sms", most], most)
    joint = fraction["jms", most]
    findings.append(
        below(f"weight of the mode at +, JMS, m = {most}: chains get stuck", joint[0], 0.77, stderr=joint[1])
    )
    lead = fraction["sms", most][0] - joint[0]
    findings.append(above(f"lead of SMS over JMS, m = {most}", lead, 0.0, stderr=math.hypot(joint[1], 0.01)))
    figures = [] if out is None else [draw_figure(out, found, fraction, counts)]
    remarks = [
        f"sigma = {SIGMA:.4g}, delta = {DELTA:g}: {STEPS} steps a measurement for SMS, {JOINT_STEPS} in all for JMS; "
        f"{chains} and {chains // 2} chains. The state of SMS is y and a sum, that of JMS all m measurements."
    ]
    return Report(NAME, TITLE, SOURCE, findings, figures, remarks)


def draw(scheme, m, steps, n, seed):
    model = GaussianMixture(MEANS, WEIGHTS, 1.0)
    settings = {"sigma": SIGMA, "m": m, "delta": DELTA, "n_steps_each": steps, "seed": seed, "batch_size": n}
    return sampling.sample(model, scheme, n, progress=False, **settings).flatten(1).double()


def plus(x):
    """(weight of the mode at +, its standard error)."""
    found = mode_fractions(x, MEANS)
    return found.fractions[0].item(), found.stderr[0].item()


def width(x, m):
    """Deviation across the diagonal: that of E[X | Y], tau^2 / sqrt(tau^2 + sigma^2 / m), and the noise of the walk."""
    across = (x[:, 0] - x[:, 1]) / math.sqrt(2)
    inflated = SIGMA**2 / (1 - DELTA / 2)  # variance of a measurement about x that the walk keeps
    expected = math.sqrt((1 + inflated / m) / (1 + SIGMA**2 / m) ** 2)
    stderr = expected / math.sqrt(2 * len(x))
    return [close(f"deviation across the diagonal, SMS, m = {m}", across.std().item(), stderr, expected)]


def draw_figure(out, found, fraction, counts):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes, *clouds = figure.subplots(1, 3)
    for scheme, name in (("sms", "sequential"), ("jms", "joint")):
        p, error = zip(*(fraction[scheme, m] for m in counts), strict=True)
        axes.errorbar(counts, p, error, marker="o", capsize=3, label=name)
    axes.plot(counts, [EXACT[m] for m in counts], "k--", label="exact measurements")
    axes.set(xscale="log", xlabel="measurements m", ylabel="weight of the mode at +", ylim=(0.45, 0.9))
    axes.set_xticks(counts, [str(m) for m in counts])
    axes.legend()
    for cloud, scheme in zip(clouds, ("sms", "jms"), strict=True):
        x = found[scheme, counts[-1]][:1000]
        cloud.scatter(x[:, 0], x[:, 1], s=2)
        cloud.set(title=f"{scheme.upper()}, m = {counts[-1]}", xlim=(-7, 7), ylim=(-7, 7), aspect="equal")
    path = out / "multi-measurement.png"
    return write_figure(figure, path)
