"""Reports of older kdexps are read under today's keys; a new one takes the place of an earlier one."""

import json

import pytest

from kdexp.report import robustness_artifacts, robustness_json

ENTRY = {"student": 0.25, "control": 0.5, "difference": {"value": -0.25, "low": None, "high": None}}
WORST = {"student": 0.25, "difference": ENTRY["difference"], "student_at": "feature_noise 3", "control_at": "fog 5"}
OLD = {
    "schema_version": 1,
    "dataset": "digits",
    "models": {"student": {"digest": "d", "cells": "run/robustness"}},
    "settings": {
        "seed": 0,
        "resamples": 100,
        "noise_dose": {
            "kinds": {"feature_noise": {"_target_": "kdexp.robustness.corruption.DoseCurve", "doses": [0.1]}}
        },
        "features": {"_target_": "kdexp.robustness.axes.representations.Representations", "neighbours": 20},
        "attacks": {"kinds": {"fgsm": {"step": 1}}},
    },
    "notes": [
        "features left out: give robustness.features.dataset=NAME",
        "noise_dose: feature_noise left out",
        "a bare features",
    ],
    "sample_counts": {"test": 1, "features train": 2, "features mnist8 train": 3},
    "accuracy_under": {"clean": ENTRY, "noise_dose": ENTRY, "shift mnist8": ENTRY},
    "measures": {
        "clean": {"acc": ENTRY},
        "corruptions_lite": {"mce_raw": ENTRY, "error_noise": ENTRY, "worst_cell_acc": WORST},
        "calibration": {"ece": ENTRY, "ace": ENTRY, "ace_scaled": ENTRY, "largest_gap": ENTRY},
        "noise_dose": {"feature_noise": {"area": ENTRY, "halving_dose": {"student": 0.5, "control": None}}},
        "features": {"mnist8": {"probe": ENTRY, "knn": ENTRY, "cka_to_teacher": {"student": 0.5}}},
    },
    "cells": [
        {
            "axis": "clean", "name": "clean", "family": "", "dose": 0, "model": "student", "acc": 0.25,
            "acc_minus_control": -0.25, "acc_minus_control_low": -0.5, "acc_minus_control_high": 0.0,
        },
        {"axis": "calibration", "name": "clean", "dose": 0, "model": "student", "ace": 0.5, "largest_gap_scaled": 0.75},
        {"axis": "noise_dose", "name": "feature_noise", "family": "", "dose": 0.1, "model": "student", "acc": 0.5},
    ],
}  # fmt: skip
TODAY = {
    "schema_version": 2,
    "dataset": "digits",
    "models": {"student": {"digest": "d", "conditions": "run/robustness"}},
    "settings": {
        "seed": 0,
        "n_resamples": 100,
        "noise_levels": {
            "kinds": {"tabular_noise": {"_target_": "kdexp.robustness.corruption.LevelCurve", "levels": [0.1]}}
        },
        "representations": {"_target_": "kdexp.robustness.axes.representations.Representations", "n_neighbors": 20},
        "attacks": {"kinds": {"fgsm": {"rel_stepsize": 1}}},
    },
    "notes": [
        "representations left out: give robustness.representations.dataset=NAME",
        "noise_levels: tabular_noise left out",
        "a bare features",
    ],
    "sample_counts": {"test": 1, "representations train": 2, "representations mnist8 train": 3},
    "accuracy_under": {"clean": ENTRY, "noise_levels": ENTRY, "shift mnist8": ENTRY},
    "metrics": {
        "clean": {"acc": ENTRY},
        "corruptions_lite": {
            "mce_unnormalized": ENTRY,
            "error_noise": ENTRY,
            "worst_condition_acc": {
                "student": 0.25,
                "difference": ENTRY["difference"],
                "worst_condition_student": "tabular_noise 3",
                "worst_condition_control": "fog 5",
            },
        },
        "calibration": {
            "ece": ENTRY,
            "ece_adaptive": ENTRY,
            "ece_adaptive_scaled": ENTRY,
            "max_calibration_error": ENTRY,
        },
        "noise_levels": {"tabular_noise": {"mean_acc": ENTRY, "level_at_half_acc": {"student": 0.5, "control": None}}},
        "representations": {
            "mnist8": {"linear_probe_acc": ENTRY, "knn_acc": ENTRY, "cka_to_teacher": {"student": 0.5}}
        },
    },
    "conditions": [
        {
            "axis": "clean", "name": "clean", "family": "", "level": 0, "model": "student", "acc": 0.25,
            "acc_gain": -0.25, "acc_gain_low": -0.5, "acc_gain_high": 0.0,
        },
        {
            "axis": "calibration", "name": "clean", "level": 0, "model": "student",
            "ece_adaptive": 0.5, "max_calibration_error_scaled": 0.75,
        },
        {"axis": "noise_levels", "name": "tabular_noise", "family": "", "level": 0.1, "model": "student", "acc": 0.5},
    ],
}  # fmt: skip


@pytest.mark.parametrize("written", [OLD, TODAY], ids=["old", "of today"])
def test_a_report_has_the_keys_of_today(written, tmp_path):
    (tmp_path / "robustness.json").write_text(json.dumps(written))
    assert robustness_json.read(tmp_path) == TODAY


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"schema_version": 3}, "schema_version of .*robustness.json must be at most 2, got 3"),
        ({}, "schema_version of .*robustness.json must be at most 2, got None"),
        ([], "schema_version of .*robustness.json must be at most 2, got None"),
        ({"schema_version": 1}, "robustness.json is damaged: 'models'"),
        (OLD | {"cells": [7]}, "robustness.json is damaged: "),
        (OLD | {"measures": {"clean": 7}}, "robustness.json is damaged: "),
    ],
)
def test_what_is_no_report_is_refused(content, message, tmp_path):
    (tmp_path / "robustness.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        robustness_json.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"conditions": [{}]}, "conditions"),
        ({"conditions": [{"axis": 5, "model": "student"}]}, "conditions"),
        ({"conditions": {"axis": "ood"}}, "conditions"),
        ({"metrics": {"ood": [1]}}, "metrics"),
        ({"metrics": {"ood": {"msp_auroc": 1}}}, "metrics"),
        ({"metrics": []}, "metrics"),
    ],
    ids=str,
)
def test_what_is_no_report_is_one_line(tmp_path, content, what):
    (tmp_path / "robustness.json").write_text(json.dumps({"schema_version": 2, **content}))
    with pytest.raises(ValueError, match=rf"^.*robustness\.json is damaged: {what} must be [^\n]*$"):
        robustness_json.read(tmp_path)


def test_a_new_report_has_no_figures_of_an_earlier_one(tmp_path, write_report):
    write_report(tmp_path)
    report = robustness_json.read(tmp_path)
    names = ("robustness_corruptions.png", "reliability.png", "roc.png")
    (tmp_path / "figures").mkdir()
    for name in names:
        (tmp_path / "figures" / name).write_text("of an earlier one")
    clean = [row for row in report["conditions"] if row["axis"] == "clean"]
    robustness_artifacts.write({**report, "conditions": clean, "reliability": {}}, tmp_path)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["roc.png"]
    assert len(robustness_json.read(tmp_path)["conditions"]) == 3
    robustness_artifacts.remove(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["figures"]
