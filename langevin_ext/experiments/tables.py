"""The four tables of the multi-scale paper: which schemes, and what the paper measured.

Block, Mroueh, Rakhlin and Ross 2020 (arXiv:2006.11166), table 1 in section 5, tables 2 to 4 in appendix E: CelebA at
32x32 and 64x64, ten noise levels with 100 steps each, FID of 10,000 samples, seconds for 100 images. Table 1 alone
prints seconds. They are linear in the evaluations: three of its rows give what a step at each resolution and an
upsampling take, and the other three follow from these within 2.1 %; so do the seconds of the rows that have none.
"""

from dataclasses import dataclass

from ..samplers import names

LEVELS, STEPS_EACH = 10, 100
STEP_SECONDS = (0.170, 0.556)  # one step of 100 images at each resolution: rows LRS and HRS of table 1
UPSAMPLING_SECONDS = 10.0  # row LRS-up
HRS = "HRS"
FSRCNN, BICUBIC = "FSRCNN", "bicubic"
PRINTED_SECONDS = {
    "LRS": 170.0,
    HRS: 556.0,
    "LRS-up": 180.0,
    "LRS-up-HRS-3": 348.0,
    "LRS-up-HRS-9": 680.0,
    "LRS-2-up-HRS-9": 533.0,
}


@dataclass(frozen=True)
class PaperRow:
    """A scheme, and what the paper says of it.

    Attributes:
        scheme: its name.
        fid: Frechet inception distance of 10,000 samples.
        seconds: for 100 images, where the paper prints them for this very row.
    """

    scheme: str
    fid: float
    seconds: float | None = None

    @property
    def additive_seconds(self) -> float:
        """What the linear model gives."""
        scheme = names.parse(self.scheme, [LEVELS, LEVELS])
        steps = sum((s.last - s.first + 1) * STEPS_EACH * STEP_SECONDS[s.model] for s in scheme.segments)
        return steps + UPSAMPLING_SECONDS * (scheme.output - scheme.segments[0].model)

    @property
    def ratio(self) -> float:
        """Time in units of HRS: printed, or else by the linear model."""
        return (self.additive_seconds if self.seconds is None else self.seconds) / PRINTED_SECONDS[HRS]

    @property
    def low(self) -> bool:
        """Whether the samples have the low resolution."""
        return names.parse(self.scheme, [LEVELS, LEVELS]).output == 0


@dataclass(frozen=True)
class PaperTable:
    """One of the tables.

    Attributes:
        number: 1 to 4.
        title: what it varies.
        upsampler: the paper's.
        rows: in the paper's order.
    """

    number: int
    title: str
    upsampler: str
    rows: tuple[PaperRow, ...]

    @property
    def schemes(self) -> list[str]:
        return [row.scheme for row in self.rows]


def _table(number, title, upsampler, fids):
    """Rows from {scheme: FID}; seconds are of runs with FSRCNN."""
    same = PRINTED_SECONDS if upsampler == FSRCNN else {HRS: PRINTED_SECONDS[HRS]}
    return PaperTable(
        number, title, upsampler, tuple(PaperRow(name, fid, same.get(name)) for name, fid in fids.items())
    )


def _one_level_twice(fids):
    """LRS-i-up-HRS-j of i = 2 .. 8, j = 11 - i: level i is run at both resolutions."""
    return {f"LRS-{i}-up-HRS-{LEVELS + 1 - i}": fid for i, fid in enumerate(fids, 2)}


TABLES = {
    1: _table(
        1,
        "image quality and sampling time",
        FSRCNN,
        {"LRS": 48.53, HRS: 20.17, "LRS-up": 37.20, "LRS-up-HRS-3": 32.46, "LRS-up-HRS-9": 26.44}
        | {"LRS-2-up-HRS-9": 19.54},
    ),
    2: _table(
        2,
        "the level at which the high resolution starts",
        FSRCNN,
        {HRS: 20.17, "LRS-up": 37.20}
        | {f"LRS-up-HRS-{j}": fid for j, fid in enumerate((32.54, 32.46, 33.39, 34.86, 36.72, 36.87, 30.78), 2)},
    ),
    3: _table(
        3,
        "the level at which the resolution changes",
        FSRCNN,
        {HRS: 20.17, "LRS-up": 37.20} | _one_level_twice((19.54, 37.77, 57.83, 57.54, 43.82, 35.84, 32.95)),
    ),
    4: _table(
        4,
        "the level at which the resolution changes, bicubic upsampling",
        BICUBIC,
        {HRS: 20.17, "LRS-up": 37.20} | _one_level_twice((19.34, 30.50, 38.99, 38.21, 35.85, 37.98, 37.08)),
    ),
}


def paper_table(number) -> PaperTable:
    """The table of that number.

    Raises:
        ValueError: there is none.
    """
    if isinstance(number, bool) or number not in TABLES:
        raise ValueError(f"table: argument number must be one of {', '.join(map(str, TABLES))}, got {number!r}")
    return TABLES[number]
