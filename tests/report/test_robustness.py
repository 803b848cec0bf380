import json
import re

import pytest
from scipy.stats import ttest_1samp

from kdexp.report.comparison import Setting
from kdexp.report.robustness import over_seeds, show, show_sweep
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
        "settings": {"confidence": 0.9},
        "notes": ["shift left out"],
        "measures": {
            "clean": {"acc": entry(0.9, 0.8, 0.8 + gain)},
            "corruptions_lite": {"mce_raw": entry(0.2, 0.4, 0.4 - gain)},
            "noise_dose": {"fog": {"area": entry(0.5, 0.4, 0.4), "halving_dose": {"teacher": 1.0, "student": halving}}},
        },
        "attack_checks": [{"model": "student", "check": "more steps", "holds": False, "detail": "1 -> 2"}],
    }


def test_a_run_is_shown_with_its_intervals_doubts_and_notes(tmp_path, capsys):
    show(report(0.0123), tmp_path)
    shown = capsys.readouterr().out
    assert "student - control, 90 % interval" in shown
    assert "+0.0123 [+0.0023, +0.0223]" in shown
    assert "mce_raw  (less is better)" in shown
    assert "fog halving_dose" in shown
    assert "warning: gradients may be masked: student: more steps: 1 -> 2" in shown
    assert "note: shift left out" in shown
    assert str(tmp_path / "robustness.csv") in shown


def test_seeds_are_paired_and_less_error_is_better(tmp_path, capsys):
    gains = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    runs = [Run(tmp_path / str(seed), {"seed": seed, "is_control": False}, "completed") for seed in range(6)]
    reports = {run.folder: report(gain, 2.0 if gain > 0.03 else None) for run, gain in zip(runs, gains, strict=True)}
    together = json.loads(json.dumps(over_seeds([Setting("kd", {}, runs)], reports)))
    (setting,) = together["settings"]
    assert setting["seeds"] == list(range(6))
    rows = {(row["axis"], row["measure"]): row for row in setting["measures"]}
    clean, errors = rows["clean", "acc"], rows["corruptions_lite", "mce_raw"]
    assert clean["mean"]["student"] == pytest.approx(0.835)
    assert clean["difference"]["mean"] == pytest.approx(0.035)
    assert clean["difference"]["p"] == pytest.approx(ttest_1samp(gains, 0).pvalue)
    assert clean["difference"]["interval"] == pytest.approx(list(ttest_1samp(gains, 0).confidence_interval(0.95)))
    assert clean["difference"]["verdict"] == errors["difference"]["verdict"] == "better"
    assert errors["difference"]["mean"] == pytest.approx(-0.035)
    assert rows["noise_dose", "fog area"]["difference"]["verdict"] == "not significant"
    halving = rows["noise_dose", "fog halving_dose"]
    assert halving["values"] == {"teacher": [1.0] * 6, "student": [2.0] * 3}
    assert halving["difference"] is None
    show_sweep(together, tmp_path)
    shown = capsys.readouterr().out
    assert "student - control, 95 % t interval over seeds" in shown
    assert "+0.0350 [+0.0154, +0.0546]  better, p = 0.0059" in re.sub("  +", "  ", shown)


def test_what_an_earlier_kdexp_found_is_shown_as_it_stands(tmp_path, capsys):
    gain = {"differences": [0.01, 0.02], "mean": 0.015, "std": 0.007, "interval": [0.01, 0.02], "p": None}
    row = {"axis": "clean", "measure": "acc", "mean": {"student": 0.9, "control": 0.885}}
    old = row | {"difference": gain | {"verdict": "not enough seeds to tell"}}
    show_sweep({"settings": [{"label": "kd", "seeds": [0, 1], "measures": [old]}]}, tmp_path)
    assert "+0.0150 [+0.0100, +0.0200]  not enough seeds to tell" in re.sub("  +", "  ", capsys.readouterr().out)
