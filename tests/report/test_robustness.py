import json
import re

import pytest
from scipy.stats import ttest_1samp

from kdexp.report import glossary
from kdexp.report.robustness import accuracy_over_seeds, over_seeds
from kdexp.report.robustness_terminal import show, show_sweep
from kdexp.report.robustness_text import answer, answer_over_seeds
from kdexp.report.run_group import RunGroup
from kdexp.report.runs import Run


def entry(teacher, control, student, spread=0.01):
    gain = student - control
    ends = {"value": gain, "low": gain - spread, "high": gain + spread}
    return {"teacher": teacher, "control": control, "student": student, "difference": ends}


def report(gain, halving=None):
    return {
        "dataset": "digits",
        "samples": 100,
        "models": {"teacher": {}, "control": {}, "student": {}},
        "settings": {"confidence_level": 0.9},
        "notes": ["shift left out"],
        "accuracy_under": {"clean": entry(0.9, 0.8, 0.8 + gain), "noise_levels": entry(0.5, 0.4, 0.4)},
        "metrics": {
            "clean": {"acc": entry(0.9, 0.8, 0.8 + gain)},
            "corruptions_lite": {"mce_unnormalized": entry(0.2, 0.4, 0.4 - gain)},
            "noise_levels": {
                "fog": {"mean_acc": entry(0.5, 0.4, 0.4), "level_at_half_acc": {"teacher": 1.0, "student": halving}}
            },
        },
        "attack_checks": [{"model": "student", "check": "more steps", "holds": False, "detail": "1 -> 2"}],
    }


def test_a_run_is_shown_with_its_answer_units_doubts_and_notes(tmp_path, capsys):
    show(report(0.0123), tmp_path)
    shown = capsys.readouterr().out
    first, *_ = shown.strip().splitlines()
    assert first.startswith(
        "The student is better than the control on clean test data (+1.23, +0.23 to +2.23); it does not differ "
        "significantly from the control under noise (+0.00, -1.00 to +1.00). Brackets: points of accuracy, and their "
        "90 % interval by a paired bootstrap over the test samples of this one run"
    )
    assert "In %, differences of student and control in points" in shown
    assert "student - control, 90 % interval" in shown
    rows = [line.split("  ") for line in re.sub("  +", "  ", shown).splitlines()]
    assert ["", "clean data: accuracy", "90.00", "80.00", "81.23", "+1.23 [+0.23, +2.23]", ""] in rows
    error = "corruptions: mean error (unnormalized mCE) (lower is better)"
    assert ["", error, "20.00", "40.00", "38.77", "-1.23 [-2.23, -0.23]", ""] in rows
    assert any(row[1:3] == ["noise: level at half accuracy, fog [level]", "1.0000"] for row in rows)
    assert "mCE: errors averaged over corruptions" in shown
    assert "ECE" not in shown  # no measure of this report
    assert "warning: gradients may be masked: student: more steps: 1 -> 2" in shown
    assert "note: shift left out" in shown
    assert str(tmp_path / "robustness.csv") in shown


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 0.02, "is better than the control on clean test data"),
        (-0.02, -0.001, "is worse than the control on clean test data"),
        (0.0, 0.02, "does not differ significantly from the control on clean test data"),
        (-0.02, 0.0, "does not differ significantly from the control on clean test data"),
        (None, None, "cannot be tested against the control on clean test data (+1.00)."),
    ],
)
def test_an_answer_says_no_more_than_its_interval(low, high, said):
    found = report(0.01)
    found["accuracy_under"] = {"clean": {"difference": {"value": 0.01, "low": low, "high": high}}}
    assert answer(found).startswith(f"The student {said}")


def test_without_a_control_or_what_a_test_needs_there_is_no_answer():
    alone = report(0.01) | {"models": {"student": {}}}
    assert answer(alone).startswith("This report does not have both student and control")
    old = {key: value for key, value in report(0.01).items() if key != "accuracy_under"}
    assert answer(old).startswith("An older kdexp made this report")


def test_an_answer_over_seeds_is_that_of_the_paired_t_test():
    def rows(clean, noise):
        reports = []
        for values in zip(clean, noise, strict=True):
            conditions = ("clean", "shift mnist8")
            differences = [{"difference": {"value": value}} for value in values]
            reports.append({"accuracy_under": dict(zip(conditions, differences, strict=True))})
        return list(accuracy_over_seeds(reports))

    clean, shift = [0.01, 0.02, 0.03], [-0.05, 0.06, 0.01]
    low, high = ttest_1samp(clean, 0).confidence_interval(0.95)
    wide = ttest_1samp(shift, 0).confidence_interval(0.95)
    assert low < 0  # three seeds of this spread show nothing
    found = answer_over_seeds("kd", rows(clean, shift))
    assert found.startswith(
        f"kd does not differ significantly from the control on clean test data (+2.00, {100 * low:+.2f} to "
        f"{100 * high:+.2f}) and under distribution shift (mnist8) (+0.67, {100 * wide.low:+.2f} to "
        f"{100 * wide.high:+.2f}). Brackets: points of accuracy, and their 95 % interval by the paired t test over 3 "
        "seeds"
    )
    clear = answer_over_seeds("kd", rows([-0.020, -0.021, -0.022], shift))
    assert clear.startswith("kd is worse than the control on clean test data (-2.10, ")
    two = answer_over_seeds("kd", rows(clean[:2], shift[:2]))
    assert two.startswith("kd was not tested against the control, which takes 3 seeds, on clean test data (+1.50)")


@pytest.mark.parametrize(
    ("axis", "name", "label"),
    [
        ("ood", "fashion_mnist max_logit_fpr95", "ood: FPR95, max_logit, fashion_mnist (lower is better)"),
        ("calibration", "ece_adaptive_scaled", "calibration: adaptive ECE, scaled (lower is better)"),
        ("calibration", "nll", "calibration: NLL [nats] (lower is better)"),
        ("corruptions_lite", "error_weather", "corruptions: error, weather (lower is better)"),
        ("noise_levels", "fog mean_acc", "noise: accuracy, fog"),
        ("later", "unheard_of", "later: unheard_of [as stored]"),
    ],
)
def test_measures_have_the_names_of_the_field(axis, name, label):
    assert glossary.label(axis, name) == label


def test_seeds_are_paired_and_less_error_is_better(tmp_path, capsys):
    gains = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    runs = [Run(tmp_path / str(seed), {"seed": seed, "is_control": False}, "completed") for seed in range(6)]
    reports = {run.folder: report(gain, 2.0 if gain > 0.03 else None) for run, gain in zip(runs, gains, strict=True)}
    together = json.loads(json.dumps(over_seeds([RunGroup("kd", {}, runs)], reports)))
    (setting,) = together["settings"]
    assert setting["seeds"] == list(range(6))
    rows = {(row["axis"], row["metric"]): row for row in setting["metrics"]}
    clean, errors = rows["clean", "acc"], rows["corruptions_lite", "mce_unnormalized"]
    assert clean["mean"]["student"] == pytest.approx(0.835)
    assert clean["difference"]["mean"] == pytest.approx(0.035)
    assert clean["difference"]["p"] == pytest.approx(ttest_1samp(gains, 0).pvalue)
    assert clean["difference"]["interval"] == pytest.approx(list(ttest_1samp(gains, 0).confidence_interval(0.95)))
    assert clean["difference"]["verdict"] == errors["difference"]["verdict"] == "better"
    assert errors["difference"]["mean"] == pytest.approx(-0.035)
    assert rows["noise_levels", "fog mean_acc"]["difference"]["verdict"] == "not significant"
    halving = rows["noise_levels", "fog level_at_half_acc"]
    assert halving["values"] == {"teacher": [1.0] * 6, "student": [2.0] * 3}
    assert halving["difference"] is None
    show_sweep(together, tmp_path)
    shown = capsys.readouterr().out
    assert "student - control, 95 % t interval over seeds" in shown
    assert "+3.50 [+1.54, +5.46]  better, p = 0.0059" in re.sub("  +", "  ", shown)
    assert shown.strip().startswith("kd is better than the control on clean test data (+3.50, +1.54 to +5.46); it does")


def test_what_an_earlier_kdexp_found_is_shown_as_it_stands(tmp_path, capsys):
    gain = {"differences": [0.01, 0.02], "mean": 0.015, "std": 0.007, "interval": [0.01, 0.02], "p": None}
    row = {"axis": "clean", "metric": "acc", "mean": {"student": 0.9, "control": 0.885}}
    old = row | {"difference": gain | {"verdict": "not enough seeds to tell"}}
    show_sweep({"settings": [{"label": "kd", "seeds": [0, 1], "metrics": [old]}]}, tmp_path)
    assert "+1.50 [+1.00, +2.00]  not enough seeds to tell" in re.sub("  +", "  ", capsys.readouterr().out)
