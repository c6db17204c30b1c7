"""Names of the schemes of multi-scale Langevin dynamics: parsed, and printed back.

The names are those of Block, Mroueh, Rakhlin and Ross 2020 (arXiv:2006.11166), section 5 and appendix E, for a low and
a high resolution with L levels each, and their generalisation to any number of resolutions:

    HRS                  high resolution from noise            HRS-j            its last j levels, from noise
    LRS                  low resolution from noise             LRS-i            its first i levels
    LRS-up, LRS-i-up     the same, then upsampled
    LRS-up-HRS-j         then the last j levels of the high resolution
    LRS-i-up-HRS-j       the first i levels low, the last j high; the paper has j = L - i + 1: level i is run twice
    R2[1:4]-up-R1[4:7]-up-R0[7:10]     levels 1 to 4 at a quarter of the side, 4 to 7 at a half, 7 to 10 at the whole

The arrow of the paper may stand for "up".
"""

import re
from dataclasses import dataclass

HIGH = re.compile(r"HRS(?:-(?P<j>[1-9][0-9]*))?")
LOW = re.compile(r"LRS(?:-(?P<i>[1-9][0-9]*))?(?P<up>-up(?:-(?P<high>HRS(?:-(?P<j>[1-9][0-9]*))?))?)?")
PART = re.compile(r"R(0|[1-9][0-9]*)\[([1-9][0-9]*):([1-9][0-9]*)\]")


@dataclass(frozen=True)
class Segment:
    """Levels to run with one model."""

    model: int  # index into the list of models, coarsest first
    first: int  # levels first .. last of its ladder, counted from 0
    last: int


@dataclass(frozen=True)
class Scheme:
    """A parsed name; `str` prints it back."""

    name: str
    segments: tuple[Segment, ...]
    output: int  # index of the model that has the shape of the samples

    def __str__(self) -> str:
        return self.name


PLAIN = ("langevin", "annealed (= HRS)")  # names without structure


def parse(name, levels, plain=PLAIN) -> Scheme:
    """The segments that a name stands for.

    Args:
        name: as in the head of this file.
        levels: number of levels of each model, coarsest first.
        plain: the schemes that have a name without structure, for the message.

    Raises:
        ValueError: the name is none for these models; the message says which are.
    """
    text = name.replace("\N{UPWARDS ARROW}", "up").replace("\N{MINUS SIGN}", "-") if isinstance(name, str) else ""
    scheme = _paper(text, levels) or _general(text, levels)
    if scheme is None:
        raise ValueError(f"sample: argument scheme must be {allowed(levels, plain)}, got {name!r}")
    return scheme


def allowed(levels, plain) -> str:
    """The names that models with these numbers of levels understand, for a message."""
    high, plain = f"j from 1 to {levels[-1]}", ", ".join(plain)
    if len(levels) == 1:
        return f"{plain} or HRS-j with {high} for one model"
    if len(levels) == 2:
        return (
            f"{plain}, HRS-j, LRS, LRS-i, LRS-up, LRS-i-up, LRS-up-HRS-j or LRS-i-up-HRS-j with "
            f"i from 1 to {levels[0]} and {high}, or levels by resolution such as "
            f"R1[1:{levels[0]}]-up-R0[1:{levels[-1]}], for two models"
        )
    return (
        f"{plain}, HRS-j with {high}, or levels by resolution such as "
        + "-up-".join(f"R{len(levels) - 1 - model}[1:{count}]" for model, count in enumerate(levels))
        + f" for {len(levels)} models"
    )


def _paper(text, levels) -> Scheme | None:
    high, low = HIGH.fullmatch(text), LOW.fullmatch(text) if len(levels) == 2 else None
    match, top = high or low, len(levels) - 1
    if match is None:
        return None
    j = int(match["j"] or levels[top])
    last = Segment(top, levels[top] - j, levels[top] - 1)
    if not 1 <= j <= levels[top]:
        return None
    if low is None:
        return Scheme(text, (last,), top)
    i = int(low["i"] or levels[0])
    if not 1 <= i <= levels[0]:
        return None
    first = Segment(0, 0, i - 1)
    return Scheme(text, (first, last) if low["high"] else (first,), top if low["up"] else 0)


def _general(text, levels) -> Scheme | None:
    segments: list[Segment] = []
    model, ups = -1, 0  # of the last segment; upsamplings since
    for token in text.split("-"):
        part = PART.fullmatch(token)
        if token == "up" and segments:
            ups += 1
        elif part:
            resolution, first, last = map(int, part.groups())
            here = len(levels) - 1 - resolution
            expected = here if not segments else model + ups
            if here < 0 or here != expected or (segments and not ups) or not 1 <= first <= last <= levels[here]:
                return None
            segments.append(Segment(here, first - 1, last - 1))
            model, ups = here, 0
        else:
            return None
    return Scheme(text, tuple(segments), model + ups) if model + ups < len(levels) else None
