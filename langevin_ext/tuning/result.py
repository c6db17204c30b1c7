"""What `tune` returns: schemes with their predicted distance and their cost."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Candidate:
    """A scheme with all its settings.

    Attributes:
        scheme: its name.
        n_steps_each, eps: of each model, coarsest first.
        upsample, renoise, denoise, init: as for `sample`.
        evaluations: of the score per sample at each resolution, {"HxW": count}.
        cost: of the evaluations, in units of HRS at 100 steps a level.
        distance: Frechet distance of the pixels to the data, squared: exact for Gaussian data of the same moments.
    """

    scheme: str
    n_steps_each: tuple[int, ...]
    eps: tuple[float, ...]
    upsample: str
    renoise: bool
    denoise: bool
    init: str
    evaluations: dict[str, int] = field(repr=False)
    cost: float
    distance: float

    @property
    def arguments(self) -> dict:
        """Keyword arguments of `sample` and `plan` that run it."""
        steps, eps = (self._one(values) for values in (self.n_steps_each, self.eps))
        arguments = {"scheme": self.scheme, "n_steps_each": steps, "eps": eps, "denoise": self.denoise}
        arguments |= {"init": self.init} if self.init != "uniform" else {}
        return arguments | ({"upsample": self.upsample, "renoise": self.renoise} if "up" in self.scheme else {})

    def _one(self, values):
        """One value if the models that run agree on it, else the list."""
        used = {value for value, count in zip(values, self.evaluations.values(), strict=True) if count}
        return used.pop() if len(used) == 1 else list(values)

    @property
    def settings(self) -> str:
        """The settings in words."""
        used = [place for place, count in enumerate(self.evaluations.values()) if count]
        each = [[f"{values[i]:g}" for i in used] for values in (self.n_steps_each, self.eps)]
        steps, eps = (", ".join(words if len(set(words)) > 1 else words[:1]) for words in each)
        up = f", {self.upsample}{' + noise' * self.renoise}" if "up" in self.scheme else ""
        return f"{steps} steps, eps {eps}{up}"


@dataclass(frozen=True)
class TuneResult:
    """Schemes on Gaussian data with the moments of the data; `print` it.

    Attributes:
        front: cheapest first, each (but `best`) at least a tenth nearer to the data than every cheaper scheme.
        best: the nearest within the budget; without a budget the cheapest that is as near as `reference`.
        reference: HRS as `sample` runs it by default.
        paper: the schemes of the paper's tables (arXiv:2006.11166) at these defaults; renoised: the same with renoise.
        evaluated: all candidates whose law was computed, for the plot.
        considered: number of candidates; those beside `evaluated` a bound shows to be behind the front.
        budget: as given.
        sigmas: noise levels of each model, if they were given.
        shapes: (C, H, W) of each resolution.
        costs: of one evaluation at each, relative.
        measured: whether these are seconds.
        stationary: whether covariances were reduced to spectra.
        seconds: what the search took.
    """

    front: tuple[Candidate, ...]
    best: Candidate
    reference: Candidate
    paper: tuple[Candidate, ...]
    renoised: tuple[Candidate, ...]
    evaluated: tuple[tuple[float, float], ...] = field(repr=False)
    considered: int
    budget: float | None
    sigmas: list[list[float]] | None
    shapes: tuple[tuple[int, ...], ...]
    costs: tuple[float, ...]
    measured: bool
    stationary: bool
    seconds: float

    @property
    def plan_arguments(self) -> dict:
        """Keyword arguments that run `best`: sample(models, **result.plan_arguments, n=64)."""
        return self.best.arguments | ({} if self.sigmas is None else {"sigmas": self.sigmas})

    def __str__(self) -> str:
        sizes = ", ".join("x".join(map(str, shape)) for shape in self.shapes)
        ratio = " : ".join(f"{cost / self.costs[0]:.3g}" for cost in self.costs)
        lines = [
            f"{self.considered:,} schemes for {sizes}: {len(self.evaluated):,} laws computed in {self.seconds:.1f} s",
            f"cost: of the evaluations at {ratio}{', as measured' * self.measured}, HRS at 100 steps a level being 1",
            "distance: predicted Frechet distance of the pixels, squared" + ", from spectra alone" * self.stationary,
            "",
            "      cost   distance  front",
            *map(self._line, self.front),
        ]
        if self.paper:
            lines += ["", "                       the schemes of arXiv:2006.11166", *map(self._line, self.paper)]
        if self.renoised:
            lines += [
                "",
                "                       the same with noise after upsampling",
                *map(self._line, self.renoised),
            ]
        lines += ["", "                       sample by default", self._line(self.reference), ""]
        within = "the cheapest as near as HRS by default" if self.budget is None else f"within {self.budget:g}"
        share = self.best.distance / self.reference.distance
        return "\n".join(
            [
                *lines,
                f"chosen (*), {within}: {self.best.scheme}, {self.best.settings}: {share:.3g} times the distance "
                f"of HRS by default at {self.best.cost:.3g} of its cost",
            ]
        )

    def _line(self, one) -> str:
        mark = "*" if one is self.best else " "
        width = max(len(other.scheme) for other in (*self.front, *self.paper))
        return f"{mark} {one.cost:8.4f} {one.distance:10.6f}  {one.scheme:{width}}  {one.settings}"
