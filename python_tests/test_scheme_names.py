"""Names of multi-resolution schemes: what they stand for, printing back, and messages."""

import pytest

from langevin_ext.samplers.names import Segment, parse

LOW, HIGH = 0, 1
TEN = [10, 10]
NAMES = {
    "HRS": ([Segment(HIGH, 0, 9)], HIGH),
    "HRS-9": ([Segment(HIGH, 1, 9)], HIGH),
    "LRS": ([Segment(LOW, 0, 9)], LOW),
    "LRS-3": ([Segment(LOW, 0, 2)], LOW),
    "LRS-up": ([Segment(LOW, 0, 9)], HIGH),
    "LRS-3-up": ([Segment(LOW, 0, 2)], HIGH),
    "LRS-up-HRS": ([Segment(LOW, 0, 9), Segment(HIGH, 0, 9)], HIGH),
    "LRS-up-HRS-3": ([Segment(LOW, 0, 9), Segment(HIGH, 7, 9)], HIGH),
    "LRS-2-up-HRS-9": ([Segment(LOW, 0, 1), Segment(HIGH, 1, 9)], HIGH),
    "R1[1:2]-up-R0[2:10]": ([Segment(LOW, 0, 1), Segment(HIGH, 1, 9)], HIGH),
    "R1[4:6]": ([Segment(LOW, 3, 5)], LOW),
    "R1[1:10]-up": ([Segment(LOW, 0, 9)], HIGH),
}


@pytest.mark.parametrize("name", NAMES)
def test_segments(name):
    segments, output = NAMES[name]
    scheme = parse(name, TEN)
    assert scheme.segments == tuple(segments) and scheme.output == output
    assert str(scheme) == name and parse(str(scheme), TEN) == scheme


@pytest.mark.parametrize("arrow", ["LRS-2-\u2191-HRS-9", "LRS-2\u2212\u2191-HRS-9"])
def test_arrow_of_the_paper_prints_as_up(arrow):
    assert str(parse(arrow, TEN)) == "LRS-2-up-HRS-9"


def test_three_resolutions():
    scheme = parse("R2[1:4]-up-R1[4:7]-up-R0[7:10]", [10, 10, 10])
    assert scheme.segments == (Segment(0, 0, 3), Segment(1, 3, 6), Segment(2, 6, 9)) and scheme.output == 2
    skipping = parse("R2[1:5]-up-up-R0[2:2]", [5, 1, 2])
    assert skipping.segments == (Segment(0, 0, 4), Segment(2, 1, 1)) and skipping.output == 2
    assert parse("R2[1:5]-up", [5, 1, 2]).output == 1
    assert parse("HRS-2", [5, 1, 2]).segments == (Segment(2, 0, 1),)


def test_levels_may_differ_between_resolutions():
    scheme = parse("LRS-up-HRS-4", [3, 5])
    assert scheme.segments == (Segment(0, 0, 2), Segment(1, 1, 4))


WRONG = ["", "up", "LRS-11", "LRS-0", "LRS-HRS-3", "up-HRS", "-HRS", "HRS-", "LRS-upHRS", "LRS-up-", "LRS-up-HRS-11"]
WRONG += [
    "R1[1:10]-R0[1:2]",
    "R0[1:10]-up",
    "R1[3:2]",
    "R0[0:2]",
    "R2[1:2]",
    "R0[1:2]-up-R1[1:2]",
    "lrs",
    "LRS-2-up-HRS-0",
    "LRS-03-up",
    "R01[1:2]",
]


@pytest.mark.parametrize("name", [*WRONG, 3, None])
def test_wrong_names_say_what_is_allowed(name):
    with pytest.raises(
        ValueError, match="LRS-i-up-HRS-j with i from 1 to 10 and j from 1 to 9, .* for two models, got"
    ):
        parse(name, [10, 9])


@pytest.mark.parametrize(
    ("name", "levels", "message"),
    [
        ("LRS", [10], r"annealed \(= HRS\) or HRS-j with j from 1 to 10 for one model, got 'LRS'"),
        (
            "LRS-up",
            [4, 5, 6],
            r"HRS-j with j from 1 to 6, .* R2\[1:4\]-up-R1\[1:5\]-up-R0\[1:6\] for 3 models, got 'LRS-up'",
        ),
        ("R2[1:2]-up-R0[1:2]", [4, 5, 6], "for 3 models"),
    ],
)
def test_messages_name_the_models(name, levels, message):
    with pytest.raises(ValueError, match=message):
        parse(name, levels)
