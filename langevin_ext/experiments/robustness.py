"""`robustness`: Langevin dynamics with score estimates whose error is tiny (Cao, Chen, Sridharan, Wu 2026)."""

import torch

from ..scores import AdversarialBall
from . import _cone_runs as cones
from . import _kl_table as table
from . import _memory_runs as memory
from . import _robustness_figures as figures
from .findings import Report

NAME = "robustness"
TITLE = "Langevin dynamics is not robust to score error: Table 1, Theorems 1, 7 and 11, the three starts"
SOURCE = "Cao, Chen, Sridharan and Wu 2026, arXiv:2603.11319, sections 3, 4 and 9"
SHOWN = 5  # mu = 5 (1, ..., 1) in the picture of Theorem 1


def run(out=None, *, size=1.0, seed=0, progress=True) -> Report:
    """Table 1 and the constructions of the three theorems, and a learned score from the three starts.

    Every chain is one of `sample`, and its law is compared with the closed form.

    Args:
        out: folder for the figures, or None for none.
        size: share of samples, trials and training steps; below 1 Theorem 11 runs up to t = 40 only.
        seed: of everything random.
        progress: show bars.

    Returns:
        `Report`.
    """
    rows = table.run_rows(size, seed, progress)
    ball = table.run_ball(size, seed, progress)
    field, wells = memory.run_wells(size, seed, progress)
    memoriser = memory.run_memoriser(size, seed, progress)
    learned = memory.run_learned(size, seed, progress)
    leaks = cones.run_cones(size, seed, progress)
    found = table.table_findings(rows) + table.ball_findings(ball) + memory.well_findings(field, wells, seed)
    found += memory.memoriser_findings(memoriser) + memory.learned_findings(learned) + cones.leak_findings(leaks)
    report = Report(NAME, TITLE, SOURCE, found, remarks=_remarks(rows))
    if out is not None:
        runs = [
            ("Theorem 7, 50 dimensions", wells),
            ("exact memoriser, 10 dimensions", memoriser),
            ("small network, 10 dimensions", learned),
        ]
        shown = AdversarialBall(torch.full((table.D,), float(SHOWN)))
        report.figures += [
            figures.table_figure(rows, ball, out / "robustness-table1.png"),
            figures.ball_figure(ball, shown, out / "robustness-ball.png"),
            figures.start_figure(runs, out / "robustness-starts.png"),
            figures.leak_figure(leaks, out / "robustness-cone.png"),
        ]
    return report


def _remarks(rows) -> list[str]:
    return [
        f"Table 1: n = {rows[0].n} samples and {rows[0].trials} trials of each row; the paper's 10 trials. That its KL "
        "is KL(pi || fit) of 5000 samples in 50 dimensions is an inference from its last column.",
        "The columns with the score estimate are missing from the available text; radii and stiffness of the fields of "
        "Theorems 1 and 7, and the angle of Theorem 11, are inferences, and the values are those for our choice.",
        "Theorem 11: the shares beside ours are those of an independent simulation of 4000 chains.",
        f"Learned score: at most {memory.POINTS} training points in {memory.SMALL_D} dimensions and a network trained "
        "for seconds, in the place of 1000 points and 150,000 epochs of 10,000; it remembers all its points, as the "
        "exact memoriser does, so that chains end at training points wherever they start.",
    ]
