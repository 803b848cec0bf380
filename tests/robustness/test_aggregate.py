"""What is said of conditions that were made up."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kdexp.metrics.calibration import predictions, reliability
from kdexp.robustness.aggregate import Summary
from kdexp.robustness.axes.attacks import Attacks
from kdexp.robustness.axes.calibration import Calibration
from kdexp.robustness.axes.corruptions import Corruptions
from kdexp.robustness.axes.dataset_shift import DatasetShift
from kdexp.robustness.axes.noise_levels import NoiseLevels
from kdexp.robustness.axes.ood import OutOfDistribution
from kdexp.robustness.bootstrap import Bootstrap
from kdexp.robustness.grid import Condition, Measured
from kdexp.robustness.ood_scores import detection
from kdexp.tasks.classification import Classification

N = 400
GENERATOR = torch.Generator().manual_seed(0)


def guess(accuracy):
    """Exactly so many right, in an order of chance."""
    hits = torch.zeros(N)
    hits[torch.randperm(N, generator=GENERATOR)[: round(accuracy * N)]] = 1
    return hits


def condition(axis, name, level, family="", positions=None, **accuracy):
    measured = {}
    for role, value in accuracy.items():
        hits = value if isinstance(value, torch.Tensor) else guess(value)
        measured[role] = Measured({"acc": float(hits.mean())}, {"right": hits})
    return Condition(axis, name, level, lambda networks: {}, {}, family, positions), measured


AXES = {  # beginning of `Condition.axis` -> axis
    "corruptions": Corruptions("corruptions", {}, [], published=False),
    "noise_levels": NoiseLevels("noise_levels", {}),
    "attack": Attacks("attacks", None, 1.0, {}, checks=True, autoattack=None),
    "shift": DatasetShift("shift", "auto", {}),
    "ood": OutOfDistribution("ood", "auto", {}),
    "calibration": Calibration("calibration", 15),
}


def summary(found):
    """Of the clean condition, the first, and those of each axis."""
    clean, others = found[:1], found[1:]
    by_axis = [(axis, [one for one in others if one[0].axis.startswith(prefix)]) for prefix, axis in AXES.items()]
    bootstrap = Bootstrap(clean[0][1], Classification(5), seed=1, n_resamples=500, confidence_level=0.95)
    return Summary(clean, by_axis, bootstrap)


# Error rates of a toy table: fog (.2, .4) and noise (.5, .6) for the student, (.3, .5) and (.4, .8) for the control.
TOY = [
    condition("clean", "clean", 0, teacher=1.0, control=0.9, student=0.95),
    condition("corruptions_lite", "fog", 1, "weather", teacher=0.9, control=0.7, student=0.8),
    condition("corruptions_lite", "fog", 2, "weather", teacher=0.8, control=0.5, student=0.6),
    condition("corruptions_lite", "noise", 1, "noise", teacher=0.7, control=0.6, student=0.5),
    condition("corruptions_lite", "noise", 2, "noise", teacher=0.6, control=0.2, student=0.4),
]


def test_mean_corruption_errors_of_a_toy_table_by_hand():
    found = summary(TOY).metrics()
    assert found["clean"]["acc"]["student"] == pytest.approx(0.95)
    lite = found["corruptions_lite"]
    assert lite["mce_unnormalized"]["student"] == pytest.approx((0.3 + 0.55) / 2)
    assert lite["mce_unnormalized"]["control"] == pytest.approx((0.4 + 0.6) / 2)
    assert lite["mce_unnormalized"]["difference"]["value"] == pytest.approx(-0.075)
    assert lite["mce_vs_control"]["student"] == pytest.approx((0.6 / 0.8 + 1.1 / 1.2) / 2)
    assert lite["mce_vs_control"]["control"] == 1
    assert lite["relative_mce"]["student"] == pytest.approx(((0.6 - 0.1) / (0.8 - 0.2) + (1.1 - 0.1) / (1.2 - 0.2)) / 2)
    assert lite["error_noise"]["teacher"] == pytest.approx(0.35)
    assert lite["worst_condition_acc"]["control"] == pytest.approx(0.2)
    assert lite["worst_condition_acc"]["worst_condition_control"] == "noise 2"


def test_accuracy_under_each_condition_is_of_the_whole_condition_by_hand():
    few = torch.arange(300, 400)
    toy = [(one, {role: measured[role] for role in ("control", "student")}) for one, measured in TOY]
    toy += [
        condition("noise_levels", "gaussian_noise", 0.2, control=0.5, student=0.55),
        condition("noise_levels", "impulse_noise", 0.1, control=0.4, student=0.35),
        condition("shift", "mnist8", 1, control=0.6, student=0.6),
        condition("attacks", "fgsm", 0.1, positions=few, control=torch.zeros(100), student=torch.ones(100)),
    ]
    found = summary(toy).measure_under()
    assert list(found) == ["clean", "corruptions_lite", "noise_levels", "attacks", "shift mnist8"]
    assert found["corruptions_lite"]["student"] == pytest.approx((0.8 + 0.6 + 0.5 + 0.4) / 4)
    noise = found["noise_levels"]
    assert noise["control"] == pytest.approx(((0.9 + 0.5) / 2 + (0.9 + 0.4) / 2) / 2)
    assert noise["difference"]["value"] == pytest.approx(((0.05 + 0.05) / 2 + (0.05 - 0.05) / 2) / 2)
    assert noise["difference"]["low"] < noise["difference"]["value"] < noise["difference"]["high"]
    clean = {role: float(TOY[0][1][role].samples["right"][few].mean()) for role in ("control", "student")}
    assert found["attacks"]["control"] == pytest.approx(clean["control"] / 2)
    assert found["attacks"]["student"] == pytest.approx((clean["student"] + 1) / 2)


def test_an_interval_is_as_wide_as_the_samples_allow():
    found = summary(TOY)
    row = next(row for row in found.rows() if row["name"] == "fog" and row["level"] == 1 and row["model"] == "student")
    own, alone = (TOY[1][1][role].samples["right"].double().numpy() for role in ("student", "control"))
    error = np.std(own - alone) / N**0.5
    assert row["acc_gain"] == pytest.approx(0.1)
    assert row["acc_gain_low"] == pytest.approx(0.1 - 1.96 * error, abs=0.2 * error)
    assert row["acc_gain_high"] == pytest.approx(0.1 + 1.96 * error, abs=0.2 * error)
    assert not [row for row in found.rows() if row["model"] != "student" and "acc_gain" in row]


def test_two_networks_that_are_the_same_differ_by_nothing():
    twins = []
    for one, measured in TOY:
        twins.append((one, {"control": measured["student"], "student": measured["student"]}))
    lite = summary(twins).metrics()["corruptions_lite"]
    for name in ("mce_unnormalized", "mce_vs_control", "relative_mce", "error_noise", "worst_condition_acc"):
        difference = lite[name]["difference"]
        assert difference["value"] == 0
        assert difference["low"] <= 0 <= difference["high"]
    assert all(row["acc_gain"] == 0 for row in summary(twins).rows() if row["model"] == "student")


def test_without_a_control_nothing_is_relative_to_it():
    alone = [(one, {"student": measured["student"]}) for one, measured in TOY]
    lite = summary(alone).metrics()["corruptions_lite"]
    assert set(lite) == {"mce_unnormalized", "error_weather", "error_noise", "worst_condition_acc"}
    assert lite["mce_unnormalized"] == {"student": pytest.approx(0.425)}


def test_level_curves_begin_at_the_clean_data_also_of_a_part_of_the_samples():
    clean = torch.cat((torch.zeros(300), torch.ones(100)))
    attacked, under_attack = torch.arange(300, 400), torch.cat((torch.ones(50), torch.zeros(50)))
    found = [
        condition("clean", "clean", 0, control=clean, student=clean),
        condition("noise_levels", "gaussian_noise", 0.1, control=0.15, student=0.25),
        condition("noise_levels", "gaussian_noise", 0.3, control=0.05, student=0.05),
        condition("attacks", "pgd", 0.2, positions=attacked, control=under_attack, student=under_attack),
    ]
    said = summary(found).metrics()
    noise = said["noise_levels"]["gaussian_noise"]
    assert noise["mean_acc"]["control"] == pytest.approx((0.1 * (0.25 + 0.15) / 2 + 0.2 * (0.15 + 0.05) / 2) / 0.3)
    assert noise["level_at_half_acc"]["student"] == pytest.approx(0.1 + 0.2 * (0.25 - 0.125) / 0.2)
    # Of the hundred samples that are attacked all are right without an attack.
    assert said["attacks"]["pgd"]["mean_acc"]["student"] == pytest.approx(0.75)


def test_an_attack_that_more_steps_make_weaker_is_doubted():
    found = [
        condition("clean", "clean", 0, student=0.9),
        condition("attacks", "pgd", 0.1, student=0.5),
        condition("attacks", "pgd", 0.2, student=0.505),
        condition("attacks", "pgd", 0.3, student=0.4),
        condition("attack_more_steps", "pgd", 0.2, student=0.6),
        condition("attack_unbounded", "pgd", 1.0, student=0.3),
    ]
    checks = {check["check"]: check["holds"] for check in summary(found).extra()["attack_checks"]}
    assert checks == {
        "pgd: more steps do not help the defender": False,
        "pgd: when every input is allowed nothing is right": False,
        "pgd: a larger eps does not help the defender": True,
    }


def calibrated(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(N, 5, generator=generator)
    target = torch.randint(5, (N,), generator=generator)
    confidence, hit = predictions(logits, target, "multiclass")
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    values = {"temperature": 2.0, "ece": 0.0, "nll": float(loss.mean())}
    return Measured(values, {"confidence": confidence, "hit": hit, "nll": loss, "confidence_scaled": confidence / 2})


def test_calibration_errors_are_resampled_by_their_bins():
    measured = {"control": calibrated(0), "student": calibrated(1)}
    clean = condition("clean", "clean", 0, control=0.5, student=0.5)
    found = [clean, (Condition("calibration", "clean", 0, None, {}), measured)]
    said = summary(found).metrics()["calibration"]
    one = measured["student"].samples
    assert said["ece"]["student"] == pytest.approx(reliability(one["confidence"], one["hit"], 15).error(), abs=1e-6)
    difference = said["nll"]["difference"]
    assert difference["low"] < difference["value"] < difference["high"]
    assert said["temperature"] == {"control": 2.0, "student": 2.0}
    diagram = summary(found).extra()["reliability"]["student"]["plain"]
    assert summary(found).extra()["reliability"]["student"]["scaled"]["count"][8:] == [0] * 7
    assert sum(diagram["count"]) == N
    assert len(diagram["accuracy"]) == 15


def test_detection_has_an_interval():
    measured = {}
    for role, distance in (("control", 0.0), ("student", 1.0)):
        own, other = torch.randn(N, generator=GENERATOR) + distance, torch.randn(300, generator=GENERATOR)
        samples = {"msp_own": own, "msp_other": other}
        measured[role] = Measured({"msp_auroc": 0.0, "msp_fpr95": 0.5}, samples)
    clean = condition("clean", "clean", 0, control=0.5, student=0.5)
    found = [clean, (Condition("ood", "elsewhere", 1, None, {}), measured)]
    said = summary(found).metrics()["ood"]
    assert list(said) == ["elsewhere"]
    said = said["elsewhere"]
    assert said["msp_auroc"]["control"] == pytest.approx(0.5, abs=0.05)
    assert said["msp_auroc"]["student"] == pytest.approx(0.76, abs=0.05)
    assert said["msp_auroc"]["difference"]["low"] > 0.1
    expected = {role: detection(one.samples["msp_own"], one.samples["msp_other"]) for role, one in measured.items()}
    for name in ("fpr95", "fpr95_openood", "aupr_in", "aupr_out"):
        assert said[f"msp_{name}"] == {role: expected[role][name] for role in ("control", "student")}


def test_near_and_far_are_means_over_their_data_sets():
    def scored(shift):
        own, other = torch.randn(N, generator=GENERATOR) + shift, torch.randn(200, generator=GENERATOR)
        return {
            role: Measured({}, {"msp_own": own + up, "msp_other": other})
            for role, up in (("control", 0), ("student", 1))
        }

    sets = [("a", "near", 0.0), ("b", "near", 1.0), ("c", "far", 2.0), ("d", "", 3.0)]
    found = [(Condition("ood", name, 1, None, {}, family), scored(shift)) for name, family, shift in sets]
    said = summary([condition("clean", "clean", 0, control=0.5, student=0.5), *found]).metrics()["ood"]
    assert list(said) == ["a", "b", "d", "near", "far"]
    for name, metric in said["near"].items():
        for role in ("control", "student"):
            assert metric[role] == pytest.approx((said["a"][name][role] + said["b"][name][role]) / 2)
    alone = summary(
        [condition("clean", "clean", 0, control=0.5, student=0.5), (replace(found[2][0], family=""), found[2][1])]
    )
    assert said["far"] == alone.metrics()["ood"]["c"]
    gain = said["near"]["msp_auroc"]["difference"]
    assert gain["low"] < gain["value"] < gain["high"]


class Bed:
    """Of which some data sets lie there."""

    def __init__(self, *there):
        self.own, self.notes, self.there = SimpleNamespace(name="own"), [], there

    def other(self, axis):
        name = axis.pairs.get("own") if axis.dataset == "auto" else axis.dataset
        if name not in self.there:
            raise FileNotFoundError(f"{name} is not there")
        part = SimpleNamespace(batches=[], digests=[])
        return SimpleNamespace(name=name, test=part)


LISTS = {"own": {"near": ["a", "b"], "far": ["c"]}}


@pytest.mark.parametrize(("settings", "expected", "notes"), [
    (("auto", {"own": "p"}, "auto", "auto", LISTS), [("p", ""), ("a", "near"), ("c", "far")],
     ["ood b left out: b is not there", "ood near: a", "ood far: c"]),
    (("auto", {"own": "a"}, "auto", [], LISTS), [("a", "near")], ["ood b left out: b is not there", "ood near: a"]),
    (("p", {}, "auto", "auto", LISTS), [("p", "")], []),
    (("auto", {"own": "p"}, [], [], LISTS), [("p", "")], []),
    (("auto", {"own": "p"}), [("p", "")], []),  # as files of before have it
    (("auto", {}, ["p"], ["c"]), [("p", "near"), ("c", "far")], ["ood near: p", "ood far: c"]),
    (("auto", {}, ["c"], "auto", LISTS), [("c", "near")], ["ood near: c"]),  # and no longer far
])  # fmt: skip
def test_which_data_sets_are_told_from_the_own(settings, expected, notes):
    bed, axis = Bed("p", "a", "c"), OutOfDistribution("ood", *settings)
    axis.check()
    assert [(one.name, one.family) for one in axis.conditions(SimpleNamespace(is_dense=False), bed)] == expected
    assert bed.notes == notes


@pytest.mark.parametrize(("settings", "message"), [
    (("auto", {}, "a", ()), "robustness.ood.near must be auto or a list of data sets, got a"),
    (("auto", {}, (), [3]), "robustness.ood.far must be auto or a list of data sets, got [3]"),
    (("p", {}, ["a"], ()), "robustness.ood.near must be auto where dataset names one, got ['a']"),
    (("auto", {}, ["a"], ["a"]), "robustness.ood.far must have no data set of near, got a"),
    (("auto", {}, ["own"], ()), "robustness.ood.near must be data sets of other classes than the run's own, got own"),
])  # fmt: skip
def test_wrong_lists_of_data_sets_are_one_line(settings, message):
    axis = OutOfDistribution("ood", *settings)

    def used():
        axis.check()
        axis.conditions(SimpleNamespace(is_dense=False), Bed("a"))

    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        used()


def test_a_data_set_of_a_list_that_is_named_must_be_there():
    with pytest.raises(FileNotFoundError, match="b is not there"):
        OutOfDistribution("ood", "auto", {}, ["b"], ()).conditions(SimpleNamespace(is_dense=False), Bed("a"))


def test_a_file_beside_its_student_changes_nothing_of_the_others():
    with_file = [(one, {**measured, "exported": measured["control"]}) for one, measured in TOY]
    found, before = summary(with_file), summary(TOY)
    rows = [row for row in found.rows() if row["model"] != "exported"]
    assert rows == before.rows()
    entry = found.metrics()["corruptions_lite"]["mce_unnormalized"]
    old = before.metrics()["corruptions_lite"]["mce_unnormalized"]
    assert {key: value for key, value in entry.items() if "export" not in key} == old
    assert entry["export_difference"]["value"] == pytest.approx(-old["difference"]["value"])
