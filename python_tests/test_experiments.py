"""What experiments report, the command, and walk-jump, measurements and the reverse process at reduced size."""

import json

import pytest
from click.testing import CliRunner

from langevin_ext.cli import main
from langevin_ext.experiments import catalogue, reverse_ou
from langevin_ext.experiments.catalogue import EXPERIMENTS, experiment
from langevin_ext.experiments.findings import Report, above, below, close, exact, failed


@pytest.mark.parametrize(
    "finding, verdict",
    [
        (close("a", 1.0, 0.1, 1.39), "reproduced"),
        (close("a", 1.0, 0.1, 1.41), "not reproduced: 4.1 standard errors apart"),
        (exact("a", 2.0, 2.0 + 1e-6), "reproduced"),
        (exact("a", 2.0, 2.0001), "not reproduced: 5e-05 apart, relative"),
        (below("a", 1.0, 2.0), "reproduced"),
        (below("a", 2.0, 1.0), "not reproduced: not below the bound"),
        (above("a", 2.0, 1.0), "reproduced"),
        (above("a", 1.0, 2.0), "not reproduced: not above the bound"),
        (failed("a", "it takes a week"), "not reproduced: it takes a week"),
    ],
)
def test_verdicts(finding, verdict):
    assert finding.verdict == verdict and finding.reproduced == (verdict == "reproduced")


@pytest.mark.parametrize("value, stderr", [(float("nan"), 0.1), (1.0, 0.0), (1.0, float("nan"))])
def test_a_value_without_meaning_is_no_finding(value, stderr):
    with pytest.raises(ValueError, match="close: ours must be finite and stderr positive"):
        close("a", value, stderr, 1.0)


def test_a_report_in_words(tmp_path):
    report = Report("toy", "A toy", "a paper", [close("p", 0.5, 0.1, 0.6, 0.7), failed("q", "no time")])
    text = str(report)
    assert "p         0.7    0.6          0.5   0.1             reproduced" in text
    assert text.endswith("toy: 1 of 2 findings reproduced, 0 s") and not report.reproduced
    assert "| p | 0.7 | 0.6 | 0.5 | 0.1 | reproduced |" in report.markdown()
    assert json.loads(json.dumps(report.to_dict()))["reproduced"] is False


def test_every_experiment_is_there():
    for name in EXPERIMENTS:
        module = catalogue.find(name)
        assert name == module.NAME and module.TITLE and module.SOURCE


def test_errors():
    with pytest.raises(ValueError, match="argument name must be one of gmm-toy, manifold, .*, got 'toy'"):
        experiment("toy")
    for size in (0, 1.1, True, "all"):
        with pytest.raises(ValueError, match=r"experiment: argument size must be in \(0, 1\], got"):
            experiment("reverse-ou", size=size)


@pytest.mark.parametrize("name", ["walk-jump", "reverse-ou", "multi-measurement"])
def test_reduced_experiments(name):
    report = experiment(name, size=0.1, progress=False)
    assert report.reproduced, str(report)
    assert report.figures == [] and len(report.findings) > 3


def test_a_wrong_coefficient_is_not_reproduced(monkeypatch):
    right = reverse_ou.recursion
    monkeypatch.setattr(reverse_ou, "recursion", lambda s2, m, T, gamma: right(1.1 * s2, m, T, gamma))
    assert not reverse_ou.run(size=0.2, progress=False).reproduced


def test_command(tmp_path):
    out = tmp_path / "walk"
    result = CliRunner().invoke(main, ["experiment", "walk-jump", "--size", "0.05", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "1 of 1 experiments reproduced" in result.output
    names = {path.name for path in out.iterdir()}
    assert names == {"report.json", "report.md", "walk-jump-digits.png"}
    assert json.loads((out / "report.json").read_text())[0]["name"] == "walk-jump"
    again = CliRunner().invoke(main, ["experiment", "walk-jump", "--out", str(out)])
    assert again.exit_code == 1 and "--out must be a new or empty folder" in again.output


def test_command_says_what_is_not_reproduced(monkeypatch):
    monkeypatch.setattr(reverse_ou, "residual", lambda: failed("residual", "on purpose"))
    result = CliRunner().invoke(main, ["experiment", "reverse-ou", "--size", "0.05"])
    assert result.exit_code == 1 and "not reproduced: on purpose" in result.output
    assert "0 of 1 experiments reproduced" in result.output
