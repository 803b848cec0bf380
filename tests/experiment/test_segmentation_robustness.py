"""kdexp-eval and kdexp-train with robustness, on small runs with masks."""

import json

import pytest
from test_segmentation_runs import SMOKE

from kdexp import results
from kdexp.config.compose import compose
from kdexp.experiment import measured_conditions
from kdexp.experiment.finished_robustness import robustness
from kdexp.experiment.run import run
from kdexp.report.robustness_terminal import show
from kdexp.report.robustness_text import answer, words

FEW = (
    "robustness.samples=6", "robustness.n_resamples=100", "robustness.attacks.samples=3",
    "robustness.attacks.kinds.pgd_linf.steps=2", "~robustness.attacks.kinds.pgd_l2",
    "robustness.corruptions.severities=[2]", "~robustness.noise_levels.kinds.uniform_noise",
    "robustness.shift.dataset=shapes",
)  # fmt: skip
LEFT_OUT = [
    "representations left out: a probe is for one class a sample, and targets are masks",
    "calibration: ece_adaptive left out: it takes the confidences of all pixels at once",
    "ood left out: it is for one class a sample, and targets are masks",
    "corruptions: tabular_noise, missing_values, feature_shift left out: for tables",
    "corruptions: typo_swap, typo_keyboard, word_dropout, word_order, random_case left out: for texts",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, store):
    """A control and a distilled student beside it."""
    folder = tmp_path_factory.mktemp("masks")
    for name, alpha in (("0", 1.0), ("1", 0.5)):
        run(compose([*SMOKE, f"alpha={alpha}"], output_dir=folder / name, store_dir=store))
    return folder


def report_of(folder, store, *overrides):
    (found,) = dict(robustness(compose(list(overrides), "eval", run=folder, store_dir=store))).values()
    return found


@pytest.fixture(scope="module")
def quick(runs, store):
    return report_of(runs / "1", store, "robustness=quick", *FEW)


def test_a_quick_look_is_of_mean_iou_throughout(runs, quick, capsys):
    written = json.loads((runs / "1" / "robustness.json").read_text())
    assert {**written, "seconds": 0} == {**quick, "seconds": 0}
    assert written["measure"] == "miou"
    found = written["metrics"]
    assert set(found) == {"clean", "corruptions_lite", "noise_levels", "attacks", "shift", "calibration"}
    assert found["shift"]["shapes"]["miou"] == found["clean"]["miou"], "the same images"
    assert set(found["shift"]["shapes"]["miou_lost"].values()) == {0}
    assert set(found["clean"]) == {"miou"}
    assert set(found["noise_levels"]["gaussian_noise"]) == {"mean_miou", "level_at_half_miou"}
    assert "worst_condition_miou" in found["corruptions_lite"]
    assert "ece_adaptive" not in found["calibration"]
    clean = {row["model"]: row for row in written["conditions"] if row["axis"] == "clean"}
    assert clean["student"]["miou_gain"] == pytest.approx(clean["student"]["miou"] - clean["control"]["miou"])
    assert clean["student"]["miou_gain_low"] <= clean["student"]["miou_gain"] <= clean["student"]["miou_gain_high"]
    for role, row in clean.items():
        assert row["miou"] == pytest.approx(found["clean"]["miou"][role])
        assert row["ece"] == pytest.approx(found["calibration"]["ece"][role], abs=1e-5)
        assert row["nll"] == pytest.approx(found["calibration"]["nll"][role], rel=1e-4)
    assert list(written["accuracy_under"]) == ["clean", "corruptions_lite", "noise_levels", "attacks", "shift shapes"]
    show(written, runs / "1")
    shown = capsys.readouterr().out
    sentence, table, *_ = shown.split("In %, differences")
    assert "points of mean IoU" in sentence
    assert "samples, test: 6 (pixels of 0: " in table
    text = " ".join([answer(written), *words([written])])
    assert "% mean IoU" in text
    for said in (sentence, text, table.split("mCE: ")[0]):
        assert "accuracy" not in said
    for note in LEFT_OUT:
        assert note in written["notes"]
        assert f"note: {note}" in shown
    assert (runs / "1" / "figures" / "robustness_levels.png").is_file()


def test_the_clean_condition_of_all_images_is_what_results_json_has(runs, store):
    report = report_of(runs / "1", store, "robustness=calibration")
    clean = {row["model"]: row for row in report["conditions"] if row["axis"] == "clean"}
    for role, folder in (("student", "1"), ("control", "0")):
        saved = results.read(runs / folder, "run")["metrics"]["test"]["best"]
        for name in ("miou", "dice", "image_dice", "acc", "nll", "ece"):
            assert clean[role][name] == pytest.approx(saved[name], abs=1e-5), name
    report_of(runs / "1", store, "robustness=quick", *FEW)  # what other tests read


def test_what_was_measured_is_not_measured_again(runs, quick, store, monkeypatch):
    def keep(file, measured):
        raise AssertionError("measured again")

    monkeypatch.setattr(measured_conditions, "keep_condition", keep)
    again = report_of(runs / "1", store, "robustness=quick", *FEW)
    assert {**again, "seconds": 0} == {**quick, "seconds": 0}


def test_a_comparison_shows_the_report_of_masks(runs, quick, command):
    done = command("kdexp-compare", str(runs), f"out={runs / 'out'}")
    assert "mean IoU" in done.stdout
    page = (runs / "out" / "report.html").read_text()
    assert "clean data: mean IoU" in page
    assert "noise: mean IoU, gaussian_noise" in page
    assert "clean data: accuracy" not in page


def test_one_class_and_its_background_are_measured_by_dice_at_the_end_of_a_training(tmp_path, store):
    binary = ("dataset.kind=binary", "dataset.num_classes=2", "alpha=1", "quick=true", "robustness=quick")
    run(compose([*SMOKE, *binary, *FEW, "robustness.shift.dataset=auto"], output_dir=tmp_path / "run", store_dir=store))
    report = json.loads((tmp_path / "run" / "robustness.json").read_text())
    assert report["measure"] == "dice"
    assert set(report["metrics"]["clean"]) == {"dice"}
    assert report["samples"] == 1
    assert LEFT_OUT[0] in report["notes"]
