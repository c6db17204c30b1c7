"""The search behind `tune`: every scheme with every setting, by exact laws where they matter.

A candidate is a prefix (levels and settings up to the last upsampling) and a suffix (levels at the full resolution).
What a suffix does to a mode does not depend on the prefix, so both are worked out once, and every pair of them costs a
few vector operations for a lower bound of its distance: with the covariances of the modes left out, which brings any
law nearer to data whose modes are uncorrelated. The full law is computed, cheapest candidates first, for those alone
whose bound is below the distance of every cheaper one.
"""

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from ..samplers import build, names
from .law import Law, effect

GAIN = 0.9  # a dearer scheme is on the front if its distance is below this share of the cheaper one's


@dataclass(frozen=True)
class Prefix:
    """What runs before the full resolution is reached: segments, the setting of each, and how images grow."""

    segments: tuple
    settings: tuple
    closed: bool  # the scheme ends with the upsampling
    upsample: str
    renoise: bool


class Search:
    """All combinations of schemes and settings.

    Args:
        data: `GaussianData` of each model, coarsest first.
        ladders: sigmas of each model.
        schemes: names, each ending at the last resolution.
        settings: for each model {key: (steps per level, eps)}, the key (steps, name of eps); the models of a candidate
            have the same name of eps.
        shared: and the same steps; otherwise all combinations.
        upsample, renoise: values to try.
        unit_costs: of one evaluation with each model.
        denoise, init: as for `sample`.
    """

    def __init__(self, data, ladders, schemes, settings, *, shared, upsample, renoise, unit_costs, denoise, init):
        self.data, self.ladders, self.settings, self.shared = data, ladders, settings, shared
        self.unit_costs, self.denoise, self.init = unit_costs, denoise, init
        self._effects: dict = {}
        self._parts: dict = {}
        self._known: dict[int, float] = {}
        parsed = [names.parse(name, [len(ladder) for ladder in ladders]) for name in schemes]
        for scheme in parsed:
            if scheme.output != len(data) - 1:
                raise ValueError(f"tune: argument schemes must end at the resolution of the data, got {scheme}")
        self.prefixes: list[tuple[Prefix, dict]] = list(self._prefixes(parsed, upsample, renoise))
        segments = {scheme.segments[-1]: None for scheme in parsed if self._reaches(scheme)}
        self.suffixes = [(segment, key) for segment in segments for key in settings[-1]]
        self._table = self._effects_of_suffixes()

    def _reaches(self, scheme):
        """Levels of the scheme run at the full resolution."""
        return scheme.segments[-1].model == len(self.data) - 1

    def _prefixes(self, parsed, upsamples, renoises):
        """Each prefix with the rows of its suffixes, None for none, and the names of the schemes they make."""
        groups: dict = {}
        for scheme in parsed:
            closed = not self._reaches(scheme)
            before = scheme.segments if closed else scheme.segments[:-1]
            groups.setdefault((before, closed), {})[None if closed else scheme.segments[-1]] = str(scheme)
        for (before, closed), ends in groups.items():
            noisy = renoises if len(before) > closed else [False]  # levels follow an upsampling
            for upsample, renoise in itertools.product(upsamples if before else upsamples[:1], noisy):
                for keys in self._keys(before):
                    yield Prefix(before, keys, closed, upsample, renoise), ends

    def _keys(self, segments):
        """The settings that the segments of a prefix may have."""
        for keys in itertools.product(*(self.settings[segment.model] for segment in segments)):
            if all(self._together(keys[0], key) for key in keys):
                yield keys

    def _together(self, one, other):
        """Whether a candidate may run one model with the one setting and another with the other."""
        return one == other if self.shared else one[1] == other[1]

    def effect(self, segment, key, last) -> tuple[torch.Tensor, torch.Tensor, int]:
        """decay, noise (D,) of the levels of a segment and its number of evaluations; rows are those of `sample`."""
        place = (segment, key, last and self.denoise)
        if place not in self._effects:
            name = f"R{len(self.data) - 1 - segment.model}[{segment.first + 1}:{segment.last + 1}]"
            chosen = [self.settings[segment.model][key]] * len(self.data)
            (run,) = stages_of(name, self.ladders, chosen, denoise=last and self.denoise)
            self._effects[place] = *effect(run.rows, self.data[segment.model].spectrum), len(run.rows)
        return self._effects[place]

    def _effects_of_suffixes(self):
        """decay^2 (S, D), noise (S, D), first sigma (S, 1) and cost (S,) of all suffixes."""
        if not self.suffixes:
            return ()
        effects = [self.effect(segment, key, True) for segment, key in self.suffixes]
        decay, noise, counts = zip(*effects, strict=True)
        sigmas = [[self.ladders[-1][segment.first]] for segment, _ in self.suffixes]
        costs = [count * self.unit_costs[-1] for count in counts]
        tables = (torch.tensor(values, dtype=torch.float64) for values in (sigmas, costs))
        return torch.stack(decay).square(), torch.stack(noise), *tables

    def law(self, prefix, *, correlated=True) -> tuple[Law, float]:
        """The law at the full resolution before the suffix and its noise, and what the prefix costs."""
        model = prefix.segments[0].model if prefix.segments else len(self.data) - 1
        law, cost = Law.initial(self.data[model], self.init), 0.0
        for number, (segment, key) in enumerate(zip(prefix.segments, prefix.settings, strict=True)):
            while model < segment.model:
                model += 1
                law = law.upsampled(self.data[model], prefix.upsample)
            if number and prefix.renoise:
                law = law.noised(self.ladders[model][segment.first])
            decay, noise, count = self.effect(segment, key, prefix.closed and segment is prefix.segments[-1])
            law, cost = law.moved(decay, noise), cost + count * self.unit_costs[model]
        while model < len(self.data) - 1:
            model += 1
            full = correlated or model < len(self.data) - 1
            law = law.upsampled(self.data[model], prefix.upsample, correlated=full)
        return law, cost

    def bounds(self, progress) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of every candidate: its cost, a lower bound of its distance, the indices of its prefix and suffix (or -1)."""
        parts = []
        for index, (prefix, ends) in enumerate(tqdm(self.prefixes, "bounds", disable=not progress, unit="prefix")):
            law, spent = self.law(prefix, correlated=False)
            mean, variances = torch.zeros_like(law.data.mean), torch.zeros_like(law.data.mean)
            mean[law.blocks], variances[law.blocks] = law.mean, law.variances
            rows = (-1,) if prefix.closed else self._rows(prefix, ends)
            bound, own = self._bound(prefix, mean, variances, rows)
            parts.append(((spent + own).numpy(), bound.numpy(), np.full(len(rows), index), np.array(rows)))
        costs, bounds, prefixes, suffixes = (np.concatenate(part) for part in zip(*parts, strict=True))
        return costs, bounds, prefixes, suffixes

    def _rows(self, prefix, ends):
        """The suffixes that a prefix may have."""
        return tuple(
            row
            for row, (segment, key) in enumerate(self.suffixes)
            if segment in ends and (not prefix.settings or self._together(prefix.settings[0], key))
        )

    def _bound(self, prefix, mean, variances, rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances with the covariances of modes left out, and costs of the suffixes."""
        data, offset = self.data[-1], (mean - self.data[-1].mean).square()
        if prefix.closed:
            distance = offset.sum() + (variances.sqrt() - data.spectrum.sqrt()).square().sum()
            return distance[None], torch.zeros(1, dtype=torch.float64)
        decay, noise, sigmas, costs = self._taken(rows)
        added = sigmas**2 if prefix.renoise else 0.0
        variances = decay * (variances + added) + noise
        return decay @ offset + (variances.sqrt() - data.spectrum.sqrt()).square().sum(1), costs

    def _taken(self, rows):
        """Rows of the table, kept: many prefixes have the same."""
        if rows not in self._parts:
            self._parts[rows] = tuple(part[list(rows)] for part in self._table)
        return self._parts[rows]

    def distance(self, prefix, row) -> float:
        """The exact distance of a candidate."""
        law, _ = self.law(prefix)
        if row >= 0:
            segment, key = self.suffixes[row]
            decay, noise, _ = self.effect(segment, key, True)
            law = law.noised(self.ladders[-1][segment.first] if prefix.renoise else 0.0)
            law = law.moved(decay, noise)
        return law.frechet()

    def front(self, far, budget, progress) -> tuple[list, list, int]:
        """The schemes that are nearer to the data than every cheaper one, and the nearest within the budget.

        Args:
            far: distance from which on no scheme is of interest.
            budget: cost within which the nearest is found even if it is nearer by less than GAIN; None for none.
            progress: show bars.

        Returns:
            the schemes as (name, [(steps, eps) of each model], upsample, renoise); the (cost, distance) of all laws
            that were computed; and the number of candidates.
        """
        table = self.bounds(progress)
        costs, bounds, prefixes, suffixes = table
        chosen = self._visit(table, np.lexsort((bounds, costs)), far, GAIN, tqdm(desc="laws", disable=not progress))
        if budget is not None:
            within = np.flatnonzero(costs <= budget)
            nearest = min((self._known[one] for one in self._known if costs[one] <= budget), default=far)
            bar = tqdm(desc="laws within the budget", disable=not progress)
            chosen += self._visit(table, within[np.argsort(bounds[within])], nearest, 1.0, bar)
        computed = [(float(costs[one]), distance) for one, distance in self._known.items()]
        return [self._described(prefixes[one], int(suffixes[one])) for one in chosen], computed, len(costs)

    def _visit(self, table, order, far, gain, bar) -> list[int]:
        """Computes, in this order, the laws whose bound is below `far`, which falls to `gain` of the nearest so far;
        returns the candidates that made it fall."""
        _, bounds, prefixes, suffixes = table
        chosen, place = [], 0
        with bar:
            while (ahead := bounds[order[place:]] < far).any():
                place += int(ahead.argmax()) + 1
                one = order[place - 1]
                if one not in self._known:
                    self._known[one] = self.distance(self.prefixes[prefixes[one]][0], int(suffixes[one]))
                    bar.update()
                if self._known[one] < far:
                    far = gain * self._known[one]
                    chosen.append(one)
        return chosen

    def _described(self, index, row):
        """The name and the settings of a candidate; models that do not run have those of one that does."""
        prefix, ends = self.prefixes[index]
        segment, key = self.suffixes[row] if row >= 0 else (None, None)
        keys = {one.model: own for one, own in zip(prefix.segments, prefix.settings, strict=True)}
        keys |= {segment.model: key} if segment else {}
        key = key or prefix.settings[-1]
        chosen = [own.get(keys.get(model, key), next(iter(own.values()))) for model, own in enumerate(self.settings)]
        return ends[segment], chosen, prefix.upsample, prefix.renoise


def stages_of(name, ladders, settings, *, denoise, renoise=False) -> list:
    """The stages of a scheme, made as `sample` makes them; settings are (steps, eps) of each model."""
    steps, eps = zip(*settings, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps that overshoot: whether they do harm is what is to be found out
        _, stages = build(
            name,
            ladders,
            {} if name == "HRS" else {"renoise": renoise},
            eps=list(eps),
            n_steps_each=list(steps),
            denoise=denoise,
            inpainting=False,
        )
    return stages
