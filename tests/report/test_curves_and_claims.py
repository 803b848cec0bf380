"""Curves over training data and the article's claims, on made-up runs whose answers are counted by hand."""

import json
import re
import shutil

import pytest
from matplotlib.image import imread

from kdexp.report import article_claims, page
from kdexp.report.article_claims import share_needed
from kdexp.report.artifacts import write
from kdexp.report.comparison import Comparison, teachers_part
from kdexp.report.condition_curves import condition_curves
from kdexp.report.runs import find

SHARES = (0.1, 0.5, 1.0)
# Control and gain of the student at each share of the data; a seed adds to both alike, and a little to the gain.
CONTROL, GAIN = (0.60, 0.70, 0.80), (0.10, 0.05, 0.02)


def few_data(folder, write_run, *, seeds=6, gains=GAIN):
    """A sweep over shares of the data: the student gains ``gains``, and 0.1 point more with each seed."""
    for seed in range(seeds):
        for share, control, gain in zip(SHARES, CONTROL, gains, strict=True):
            data, luck = {"train_fraction": share, "label_noise": 0.0}, seed / 100
            write_run(folder / f"control-{share}-{seed}", alpha=1.0, seed=seed, acc=control + luck, data=data)
            acc = control + luck + gain + seed / 1000
            write_run(folder / f"kd-{share}-{seed}", seed=seed, acc=acc, val=share, data=data)


def wrong_labels(folder, write_run, *, seeds=6):
    """The same sweep with wrong labels among all the data."""
    for seed in range(seeds):
        for rate, control, student in ((0.2, 0.7, 0.74), (0.4, 0.5, 0.58)):
            data = {"train_fraction": 1.0, "label_noise": rate}
            write_run(folder / f"control-{rate}-{seed}", alpha=1.0, seed=seed, acc=control, data=data)
            write_run(folder / f"kd-{rate}-{seed}", seed=seed, acc=student + seed / 1000 * rate, val=0.1, data=data)


def compared(folder):
    return Comparison(find([folder])[0])


def test_a_curve_has_a_point_for_each_dose_with_its_control_and_its_teacher(tmp_path, write_run):
    few_data(tmp_path, write_run, seeds=2)
    (curve,) = condition_curves(compared(tmp_path))
    (student,) = curve.students
    assert (curve.axis, curve.where, student.label) == ("dataset.train_fraction", "", "distilled")
    assert list(student.groups) == list(curve.control.groups) == list(SHARES)
    assert curve.teacher == dict.fromkeys(SHARES, pytest.approx(0.99))
    assert student.gains([0.1, 0.5]) == {0: pytest.approx([0.1, 0.05]), 1: pytest.approx([0.101, 0.051])}
    assert student.mean_gain([0.1, 0.5]).mean == pytest.approx(0.0755)
    shutil.rmtree(tmp_path / "kd-0.5-1")
    ((student,),) = (curve.students for curve in condition_curves(compared(tmp_path)))
    assert list(student.gains([0.1, 0.5])) == [0], "a seed counts where it has all doses"


def test_a_sweep_of_two_grids_is_two_curves_that_meet(tmp_path, write_run):
    for seed in (0, 1):
        for share, rate in ((0.1, 0.0), (1.0, 0.0), (1.0, 0.4)):
            data = {"train_fraction": share, "label_noise": rate}
            write_run(tmp_path / f"control-{share}-{rate}-{seed}", alpha=1.0, seed=seed, data=data)
            for loss in ("kd", "dkd"):
                write_run(tmp_path / f"{loss}-{share}-{rate}-{seed}", loss=loss, seed=seed, data=data)
    found = {curve.axis: curve for curve in condition_curves(compared(tmp_path))}
    assert {axis: list(curve.control.groups) for axis, curve in found.items()} == {
        "dataset.train_fraction": [0.1, 1.0],
        "dataset.label_noise": [0.0, 0.4],
    }
    assert sorted(line.label for line in found["dataset.label_noise"].students) == ["loss=dkd", "loss=kd"]
    assert all(curve.where == "" for curve in found.values())


def test_data_of_two_kinds_have_a_curve_each(tmp_path, write_run):
    for kind in ("symmetric", "pair"):
        for rate in (0.0, 0.4):
            data = {"label_noise_kind": kind, "label_noise": rate}
            write_run(tmp_path / f"control-{kind}-{rate}", alpha=1.0, data=data)
            write_run(tmp_path / f"kd-{kind}-{rate}", data=data)
    where = sorted(curve.where for curve in condition_curves(compared(tmp_path)))
    assert where == ["dataset.label_noise_kind=pair", "dataset.label_noise_kind=symmetric"]
    written = write(compared(tmp_path), tmp_path, source=[])
    pictures = [path for _, path in written if path.suffix == ".png"]
    assert sorted(path.name for path in pictures) == [
        "curve-label_noise-dataset.label_noise_kind-pair.png",
        "curve-label_noise-dataset.label_noise_kind-symmetric.png",
    ]
    assert all(imread(path).std() > 0.01 for path in pictures)


@pytest.mark.parametrize(
    ("target", "share"),
    [(0.5, 0.01), (0.6, 0.01), (0.7, 0.1), (0.75, 10**-0.5), (0.8, 1.0), (0.81, None)],
)
def test_the_share_that_is_needed_lies_on_the_line_through_the_logarithms(target, share):
    assert share_needed([0.01, 0.1, 1.0], [0.6, 0.7, 0.8], target) == (share and pytest.approx(share))


def evidence(claim):
    return {one.what: one for one in claim.evidence}


def examined(folder, write_report, seeds=6, **settings):
    """Reports of the runs with all the data."""
    for seed in range(seeds):
        probe = {"teacher": 0.9, "control": 0.7, "student": 0.72 + seed / 1000}
        write_report(folder / f"kd-1.0-{seed}", probe=probe, **settings)


def test_each_claim_has_its_numbers_and_its_verdict(tmp_path, write_run, write_report):
    few_data(tmp_path, write_run)
    wrong_labels(tmp_path, write_run)
    # Under noise the control keeps a half of 0.8, the student four tenths of 0.85: it loses more.
    noisy = {"teacher": 0.5, "control": 0.5, "student": 0.4}
    examined(tmp_path, write_report, noisy=noisy)
    comparison = compared(tmp_path)
    data, features, noise = article_claims.article_claims(comparison, comparison.reports)

    assert (data.verdict, features.verdict, noise.verdict) == ("holds", "holds", "holds in part")
    (few,) = [one for one in data.evidence if one.decides]
    assert few.what == "accuracy with 10, 50 % of the training samples, mean"
    assert few.gain.mean == pytest.approx((0.1 + 0.05) / 2 + 0.0025)
    assert (few.control, few.student) == (pytest.approx(0.675), pytest.approx(0.675 + 0.0775))
    # The control has 82.5 % with all; the student has 77.75 with half and 84.75 with all.
    way = (0.825 - 0.7775) / (0.8475 - 0.7775)
    assert f"the student reaches that with {100 * 0.5 ** (1 - way):.0f} % of them" in data.remarks[0]

    (probe,) = [one for one in features.evidence if one.decides]
    assert "mnist8 (another data set)" in probe.what
    assert probe.gain.mean == pytest.approx(0.0225)

    found = evidence(noise)
    inputs = found["accuracy lost to noise in the inputs (gaussian noise)"]
    assert (inputs.control, inputs.student) == (pytest.approx(0.4), pytest.approx(0.51))
    assert inputs.gain.mean == pytest.approx(-0.11)
    labels = found["accuracy lost to 20, 40 % of wrong training labels, mean"]
    assert labels.control == pytest.approx(0.825 - 0.6)
    # The gain is 0.06 with wrong labels and 0.02 without; a seed adds 0.3 and 1 thousandths to these.
    assert labels.student == pytest.approx(0.8475 - (0.66 + 0.0003 * 2.5))
    assert labels.gain.differences == pytest.approx([0.04 - 0.0007 * seed for seed in range(6)])
    assert labels.gain.verdict == "better"


def test_a_student_that_gains_nothing_has_no_claim_confirmed(tmp_path, write_run, write_report):
    few_data(tmp_path, write_run, gains=(-0.1, -0.05, -0.02))
    examined(tmp_path, write_report, student=0.8)
    comparison = compared(tmp_path)
    data, _, noise = article_claims.article_claims(comparison, comparison.reports)
    assert data.verdict == "does not hold"
    assert "does not reach that with any share" in data.remarks[0]
    assert noise.verdict == "not significant"
    assert all(one.gain.interval == (0, 0) for one in noise.evidence)


def test_two_seeds_are_too_few_and_what_was_not_run_was_not_measured(tmp_path, write_run, write_report):
    few_data(tmp_path, write_run, seeds=2)
    comparison = compared(tmp_path)
    assert (
        article_claims.article_claims(comparison, comparison.reports) == []
    )  # one claim alone is the curve's business
    wrong_labels(tmp_path, write_run, seeds=2)
    comparison = compared(tmp_path)
    data, features, noise = article_claims.article_claims(comparison, comparison.reports)
    told = "too few seeds"
    assert (data.verdict, features.verdict, noise.verdict) == (told, "not measured", told)
    assert "kdexp-eval sweep=FOLDER robustness=article" in features.remarks[0]
    assert "not measured in these runs" in article_claims.sentence(features)


def test_the_claims_are_a_section_a_page_and_words(tmp_path, write_run, write_report, monkeypatch, capsys):
    monkeypatch.setattr(page, "_packed_plotly", str)
    few_data(tmp_path, write_run)
    examined(tmp_path, write_report)
    written = dict(write(compared(tmp_path), tmp_path, source=[]))
    text = written["the claims"].read_text()
    assert "## 1. A distilled student needs less training data: holds" in text
    assert "| **accuracy with 10, 50 % of the training samples, mean** | 67.50 | 75.25 | +7.75 [" in text
    assert imread(tmp_path / "curve-corruptions_lite.png").std() > 0.01
    html = written["look at it"].read_text()
    sections = re.findall(r'<section id="([\w-]+)"', html)
    assert sections[1:5] == ["claims", "errors", "train-fraction", "robustness"]
    for words in ("Worst cell of the student: fog 5, 42.5 % accuracy.", "Gradients may be masked: student: more steps",
                  "Note: shift left out."):  # fmt: skip
        assert words in html
    plots = json.loads(re.search(r'id="plots">(.*?)</script>', html, re.DOTALL)[1])
    accuracy = next(p for p in plots if p["layout"]["xaxis"].get("type") == "log")
    assert {trace["name"]: trace["y"] for trace in accuracy["data"]}["control"] == pytest.approx([62.5, 72.5, 82.5])
    severity = next(p for p in plots if p["layout"]["xaxis"].get("title", {}).get("text") == "severity")
    (student,) = [trace for trace in severity["data"] if trace["name"] == "student"]
    assert student["x"] == [0, 1, 5]
    assert student["y"] == pytest.approx([85, 85, (42.5 + 85) / 2])


def test_what_the_teacher_adds_to_soft_labels_is_paired_by_seed(tmp_path, write_run):
    for seed in range(6):
        for loss, acc in (("kd", 0.90), ("matched_smoothing", 0.87), ("permuted_kd", 0.88)):
            write_run(tmp_path / f"{loss}-{seed}", loss=loss, seed=seed, acc=acc + seed / 100 * (1 + (loss == "kd")))
        write_run(tmp_path / f"control-{seed}", alpha=1.0, seed=seed, acc=0.8)
    found = {(taught.label, other.label): gain.differences for taught, other, gain in teachers_part(compared(tmp_path))}
    assert found == {
        ("loss=kd", "loss=matched_smoothing"): pytest.approx([0.03 + seed / 100 for seed in range(6)]),
        ("loss=kd", "loss=permuted_kd"): pytest.approx([0.02 + seed / 100 for seed in range(6)]),
    }
