"""kdexp-eval with robustness, on small runs of made-up data."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from omegaconf import OmegaConf
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kdexp import results
from kdexp.cli.eval import show as show_metrics
from kdexp.cli.eval import show_robustness
from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity
from kdexp.experiment import measured_conditions, robustness_inputs
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.finished_robustness import robustness
from kdexp.experiment.finished_run import run as measure
from kdexp.experiment.robustness_evaluator import RobustnessEvaluator
from kdexp.experiment.robustness_report import run_subject
from kdexp.experiment.run import run
from kdexp.report.comparison import Comparison
from kdexp.report.png_figures import run as png_figures
from kdexp.report.robustness_terminal import show
from kdexp.report.robustness_text import words
from kdexp.report.runs import find
from kdexp.robustness.grid import Condition, Networks
from kdexp.robustness.probes import cka
from kdexp.weights import load_weights

SMOKE = ("experiment=smoke", "tracking=none", "trainer.max_epochs=1", "teacher.recipe.max_epochs=1")
SMALL = ("robustness.samples=60", "robustness.n_resamples=100")


def reports_of(store, *overrides, **settings):
    config = compose(list(overrides), "eval", store_dir=store, **settings)
    return dict(robustness(config))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, store):
    """A control and a distilled student beside it."""
    folder = tmp_path_factory.mktemp("sweep")
    for name, alpha in (("0", 1.0), ("1", 0.1)):
        run(compose([*SMOKE, f"alpha={alpha}"], output_dir=folder / name, store_dir=store))
    return folder


@pytest.fixture
def copied(sweep, tmp_path):
    """The same in a place of its own."""
    return shutil.copytree(sweep, tmp_path / "sweep")


@pytest.fixture(scope="module")
def quick(sweep, store):
    return reports_of(store, "robustness=quick", *SMALL, run=sweep / "1")[sweep / "1"]


def test_a_quick_look_leaves_a_report_its_cells_and_its_figures(sweep, quick):
    folder = sweep / "1"
    written = json.loads((folder / "robustness.json").read_text())
    assert {**written, "seconds": 0} == {**quick, "seconds": 0}  # another test may have asked again
    assert list(quick["models"]) == ["teacher", "control", "student"]
    assert quick["samples"] == 60
    assert set(quick["metrics"]) == {
        "clean",
        "corruptions_lite",
        "noise_levels",
        "attacks",
        "calibration",
        "representations",
    }
    with (folder / "robustness.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows[:3]] == ["teacher", "control", "student"]
    assert {row["axis"] for row in rows} >= {
        "clean",
        "corruptions_lite",
        "noise_levels",
        "attacks",
        "attack_more_steps",
    }
    fog = [row for row in rows if row["name"] == "fog" and row["level"] == "3"]
    assert all(0 <= float(row[name]) <= 1 for row in fog for name in ("acc", "f1", "auc", "ece"))
    assert all(float(row["nll"]) > 0 for row in fog)
    assert [bool(row["agreement_teacher_wrong"]) for row in fog] == [False, True, True]
    for name in ("robustness_corruptions", "robustness_levels", "reliability"):
        assert imread(folder / "figures" / f"{name}.png").shape[0] > 300
    left_out = "corruptions: tabular_noise, missing_values, feature_shift left out: for tables"
    assert left_out in quick["notes"]
    assert any(note.startswith("shift left out: no data set is paired with synthetic") for note in quick["notes"])


def test_the_clean_cell_of_all_samples_is_what_results_json_has(sweep, store):
    report = reports_of(store, "robustness=calibration", run=sweep / "1")[sweep / "1"]
    saved = results.read(sweep / "1", "run")
    clean = {row["model"]: row for row in report["conditions"] if row["axis"] == "clean"}
    for name, value in saved["metrics"]["test"]["best"].items():
        assert clean["student"][name] == pytest.approx(value, abs=1e-5), name
    assert clean["teacher"]["acc"] == pytest.approx(saved["teacher"]["test"]["acc"])
    control = results.read(sweep / "0", "control")["metrics"]["test"]["best"]
    assert clean["control"]["acc"] == pytest.approx(control["acc"])
    assert report["metrics"]["calibration"]["ece"]["student"] == pytest.approx(clean["student"]["ece"], abs=1e-6)


def test_what_was_measured_is_not_measured_again(sweep, quick, store, monkeypatch):
    def keep(file, measured):
        raise AssertionError("measured again")

    monkeypatch.setattr(measured_conditions, "keep_condition", keep)
    again = reports_of(store, "robustness=quick", *SMALL, run=sweep / "1")[sweep / "1"]
    assert {**again, "seconds": 0} == {**quick, "seconds": 0}


def test_a_cut_off_evaluator_goes_on_where_it_was_and_a_damaged_cell_is_measured_anew(copied, store, monkeypatch):
    done = []
    keep = measured_conditions.keep_condition

    def interrupted(file, measured):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(file)
        keep(file, measured)

    settings = ("robustness=noise_levels", *SMALL, "robustness.seed=5")
    monkeypatch.setattr(measured_conditions, "keep_condition", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reports_of(store, *settings, run=copied / "1")
    done[0].write_bytes(done[0].read_bytes()[:50])
    kept = []

    def keeping(file, measured):
        kept.append(file)
        keep(file, measured)

    monkeypatch.setattr(measured_conditions, "keep_condition", keeping)
    report = reports_of(store, *settings, run=copied / "1")[copied / "1"]
    assert done[0] in kept
    assert not set(done[1:]) & set(kept)
    assert len(kept) + 3 == 3 * (1 + 3 * 5)
    assert len(report["conditions"]) == 3 * (1 + 3 * 5)


def test_every_distilled_run_of_a_sweep_is_examined_beside_its_control(sweep, quick, store):
    found = reports_of(store, "robustness=quick", *SMALL, sweep_dir=sweep)
    assert list(found) == [sweep / "1", sweep]
    assert found[sweep / "1"]["metrics"] == quick["metrics"]
    written = json.loads((sweep / "robustness.json").read_text())
    assert written["settings"] == json.loads(json.dumps(found[sweep]["settings"]))
    (setting,) = written["settings"]
    assert setting["seeds"] == [0]
    rows = {(row["axis"], row["metric"]): row for row in setting["metrics"]}
    raw = quick["metrics"]["corruptions_lite"]["mce_unnormalized"]
    assert rows["corruptions_lite", "mce_unnormalized"]["mean"] == {
        role: raw[role] for role in ("teacher", "control", "student")
    }
    assert rows["corruptions_lite", "mce_unnormalized"]["difference"]["mean"] == raw["difference"]["value"]
    assert rows["noise_levels", "gaussian_noise mean_acc"]["difference"]["verdict"] == "too few seeds"


def test_a_folder_may_be_named_by_a_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=r"^run must be .*5"):
        measure(compose(["run=5"], "eval"))
    with pytest.raises((ValueError, FileNotFoundError), match=r"^run must be .*5"):
        dict(robustness(compose(["run=5", "robustness=quick"], "eval")))


def test_the_sweep_s_own_statement_and_page_tell_what_was_measured(quick, copied, store, capsys):
    config = compose(["robustness=quick", *SMALL], "eval", store_dir=store, sweep_dir=copied)
    show_robustness(robustness(config), of_run=False)
    printed = capsys.readouterr().out
    assert f"statement     {copied / 'loss_statement.md'}" in printed
    assert "NLL under corruptions" in (copied / "loss_statement.md").read_text()
    assert "corruptions_lite" in (copied / "report.html").read_text()


def test_what_a_search_left_unmeasured_on_test_is_not_evaluated(sweep, store, tmp_path):
    trials = shutil.copytree(sweep, tmp_path / "trials")
    saved = results.read(trials / "1", "run")
    del saved["metrics"]["test"]
    (trials / "1" / results.FILE).write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=r"^run must be measured on test, got .*/1, a trial that its search did not"):
        reports_of(store, "robustness=quick", *SMALL, run=trials / "1")
    found = reports_of(store, "robustness=quick", *SMALL, sweep_dir=trials)
    assert list(found) == [trials / "0", trials]  # the control is all that is left


def test_features_are_probed_from_val_to_test_and_held_against_the_teachers(sweep, store):
    folder = sweep / "1"
    (report,) = reports_of(store, "robustness=representations", run=folder).values()
    config = compose([*SMOKE, "alpha=0.1"], output_dir=folder, store_dir=store)
    data = Experiment(config).data
    student = Experiment(config).new_student(pretrained=None)
    load_weights(student, folder / "student.safetensors", "run")
    teacher = Experiment(config, may_train_teacher=False).teacher.networks[0]

    def seen(network, split):
        """What the last linear layer gets, and the labels."""
        *_, classifier = (module for module in network.modules() if isinstance(module, torch.nn.Linear))
        inputs = []
        hook = classifier.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
        labels = []
        for batch in data.student.eval_batches(split, "cpu"):
            labels.append(batch.target)
            with torch.no_grad():
                network.eval()(batch.inputs)
        hook.remove()
        return torch.cat(inputs).numpy(), torch.cat(labels).numpy()

    metrics = report["metrics"]["representations"]["synthetic"]
    for role, network in (("student", student), ("teacher", teacher)):
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(*seen(network, "val"))
        assert metrics["linear_probe_acc"][role] == pytest.approx(probe.score(*seen(network, "test")), abs=0.01)
    alike = cka(seen(student, "test")[0], seen(teacher, "test")[0])
    assert alike < 0.99
    assert metrics["cka_to_teacher"]["student"] == pytest.approx(alike, abs=1e-3)


def test_a_report_of_fewer_axes_says_what_the_one_before_had(copied, store, caplog):
    caplog.set_level("INFO")

    def said(*axes):
        caplog.clear()
        report = reports_of(store, f"robustness=[{','.join(axes)}]", *SMALL, run=copied / "1")[copied / "1"]
        return report, [record.getMessage() for record in caplog.records if "takes the place" in record.getMessage()]

    (copied / "1" / "robustness.json").unlink(missing_ok=True)  # of another test
    assert said("calibration")[1] == []
    assert said("calibration")[1] == []
    assert said("representations")[1] == [
        "this report takes the place of one that has calibration, too; robustness=[calibration,representations] has "
        "all, and measures only what is new"
    ]
    every, nothing = said("calibration", "representations")
    assert nothing == []
    assert {"calibration", "representations"} <= set(every["metrics"])


def test_a_control_alone_is_examined_as_a_control(sweep, store):
    report = reports_of(store, "robustness=calibration", *SMALL, run=sweep / "0")[sweep / "0"]
    assert list(report["models"]) == ["control"]


def test_a_control_is_trained_where_there_is_none(copied, store):
    shutil.rmtree(copied / "0")
    settings = ("robustness=noise_levels", *SMALL)
    with pytest.raises(ValueError, match=r"^control must be found beside the run, got none .*control=train trains it"):
        reports_of(store, *settings, "control=find", run=copied / "1")
    report = reports_of(store, *settings, "control=skip", run=copied / "1")[copied / "1"]
    assert list(report["models"]) == ["teacher", "student"]
    report = reports_of(store, *settings, run=copied / "1")[copied / "1"]
    assert list(report["models"]) == ["teacher", "control", "student"]
    trained = results.read(copied / "1" / "control", "control")
    assert trained["is_control"]
    assert trained["control_fingerprint"] == results.read(copied / "1", "run")["control_fingerprint"]
    again = reports_of(store, *settings, "control=find", run=copied / "1")[copied / "1"]
    assert again["models"] == report["models"], "it is found from now on"


def test_a_control_is_trained_once_for_all_runs_of_a_sweep_with_one_seed(copied, store):
    shutil.rmtree(copied / "0")
    run(compose([*SMOKE, "alpha=0.5"], output_dir=copied / "2", store_dir=store))
    found = reports_of(store, "robustness=noise_levels", *SMALL, sweep_dir=copied)
    controls = [found[copied / name]["models"]["control"] for name in ("1", "2")]
    assert controls[0] == controls[1]
    assert len(list(copied.glob("*/control"))) == 1


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel"])
def test_tables_and_all_tasks_have_a_quick_look_too_at_the_end_of_a_training(tmp_path, store, kind):
    table = ["dataset.input_shape=[30]", "dataset.mean=[0]", "dataset.std=[1.4]", "student=mlp", "teacher=mlp",
             f"dataset.kind={kind}", f"dataset.num_classes={4 if kind == 'multilabel' else 2}"]  # fmt: skip
    quick = ["robustness=quick", *SMALL, "robustness.attacks.samples=30"]
    run(compose([*SMOKE, *table, "alpha=1"], output_dir=tmp_path / "a", store_dir=store))
    result = run(compose([*SMOKE, *table, *quick], output_dir=tmp_path / "b", store_dir=store))
    report = json.loads((tmp_path / "b" / "robustness.json").read_text())
    assert list(report["models"]) == ["teacher", "control", "student"]
    assert {row["name"] for row in report["conditions"] if row["axis"] == "corruptions_lite"} == {
        "tabular_noise", "missing_values", "feature_shift",
    }  # fmt: skip
    assert result["cost"]["seconds"]["robustness"] > 0
    # Accuracy under attack falls, and when everything is allowed nothing is left.
    assert all(check["holds"] for check in report["attack_checks"]), report["attack_checks"]


def test_a_run_without_its_control_is_examined_at_the_end_all_the_same(tmp_path, store):
    run(compose([*SMOKE, "robustness=calibration", *SMALL], output_dir=tmp_path, store_dir=store))
    report = json.loads((tmp_path / "robustness.json").read_text())
    assert list(report["models"]) == ["teacher", "student"]
    assert any("no control" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["robustness=corruptions", "robustness.corruptions.severities=[6]"],
         r"^robustness.corruptions.severities must be of 1 to 5, got 6$"),
        (["robustness=corruptions", "corruption@robustness.corruptions.kinds=[missing_values]"],
         r"^robustness must leave something .* got nothing: corruptions: missing_values left out: for tables$"),
        (["robustness=attacks", "robustness.attacks.kinds.fgsm.eps=[0.1,1.5]"],
         r"^robustness.attacks.kinds.fgsm: eps of an attack must be in \(0, 1\], the range of a pixel, got 1.5$"),
        (["robustness=attacks", "robustness.attacks.kinds.fgsm.eps=0.1"],
         r"^robustness.attacks.kinds.fgsm.eps must be a list of numbers, got 0.1$"),
        (["robustness=attacks", "robustness.attacks.kinds.fgsm.eps=[small]"],
         r"^robustness.attacks.kinds.fgsm.eps must be a list of numbers, got \['small'\]$"),
        (["robustness=attacks", "robustness.attacks.kinds.fgsm.steps=many"],
         r"^robustness.attacks.kinds.fgsm.steps must be at least 1, got many$"),
        (["robustness=attacks", "robustness.attacks.kinds.pgd_l2.rel_stepsize=2"],
         r"^robustness.attacks.kinds.pgd_l2.rel_stepsize must be in \(0, 1\], got 2$"),
        (["robustness=attacks", "robustness.attacks.kinds.pgd_l2.random_start=maybe"],
         r"^robustness.attacks.kinds.pgd_l2.random_start must be true or false, got maybe$"),
        (["robustness=attacks", "robustness.attacks.kinds.pgd_l2.norm=l1"],
         r"^robustness.attacks.kinds.pgd_l2: norm of an attack must be linf or l2, got l1$"),
        (["robustness=attacks", "+robustness.attacks.kinds.mine={norm:l2,eps:[1]}"],
         r"^robustness.attacks.kinds.mine must have norm, eps, steps, rel_stepsize, random_start, got norm, eps$"),
        (["robustness=attacks", "robustness.attacks.kinds.fgsm=null"],
         r"^robustness.attacks.kinds.fgsm must be settings, got None$"),
        (["robustness=attacks", "robustness.attacks.kinds=3"],
         r"^robustness.attacks.kinds must be settings by name, got 3$"),
        (["robustness=attacks", "robustness.attacks.tabular_eps_scale=big"],
         r"^robustness.attacks.tabular_eps_scale must be > 0, got big$"),
        (["robustness=noise_levels", "robustness.noise_levels.kinds.gaussian_noise.levels=0.1"],
         r"^robustness.noise_levels.kinds.gaussian_noise.levels must be a list of numbers, got 0.1$"),
        (["robustness=noise_levels", "~robustness.noise_levels.kinds.gaussian_noise.parameter"],
         r"^robustness.noise_levels.kinds.gaussian_noise: kdexp.robustness.corruption.LevelCurve: .*'parameter'$"),
        (["robustness=noise_levels", "robustness.noise_levels.kinds.gaussian_noise.levels=[0.2,0.1]"],
         r"^robustness.noise_levels.kinds.gaussian_noise: levels must rise, each > 0, got \[0.2, 0.1\]$"),
        (["robustness=corruptions", "robustness.corruptions.kinds.fog=3"],
         r"^robustness.corruptions.kinds.fog must be settings, got 3$"),
        (["robustness=quick", "robustness.seed=x"], r"^robustness.seed must be a whole number, got x$"),
        (["robustness=corruptions", "robustness.corruptions.severities=3"],
         r"^robustness.corruptions.severities must be a list, got 3$"),
        (["robustness=shift"], r"^robustness must leave something .* no data set is paired with synthetic"),
        (["robustness=shift", "robustness.shift.dataset=breast_cancer"],
         r"^robustness.shift.dataset must be a data set with samples like those of synthetic, of shape \[1, 8, 8\], "
         r"got breast_cancer of shape \[30\]$"),
        (["robustness=ood", "robustness.ood.dataset=nope"], r"^there is no dataset=nope \(of dataset there are "),
        (["robustness=ood", "robustness.ood.dataset=mnist", "data_dir=/nowhere"], r"^data_dir has no MNIST"),
        (["robustness=quick", "robustness.confidence_level=1"],
         r"^robustness.confidence_level must be in \(0, 1\), got 1$"),
        (["robustness=quick", "robustness.confidence_level=high"],
         r"^robustness.confidence_level must be in \(0, 1\), got high$"),
        (["robustness=quick", "robustness.n_resamples=few"], r"^robustness.n_resamples must be at least 100, got few$"),
        (["robustness=representations", "robustness.representations.n_neighbors=0"],
         r"^robustness.representations.n_neighbors must be at least 1, got 0$"),
        (["robustness=representations", "robustness.representations.n_neighbors=few"],
         r"^robustness.representations.n_neighbors must be at least 1, got few$"),
        (["robustness=quick", "robustness.samples=0"], r"^robustness.samples must be null or at least 1, got 0$"),
        (["robustness=quick", "control=perhaps"], r"^control must be train, find or skip, got perhaps$"),
        (["robustness=quick", "sweep_dir=/nowhere"], r"^one of run and sweep must be given, .* sweep=/now"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(sweep, store, overrides, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        reports_of(store, *overrides, run=sweep / "1")
    assert "\n" not in str(caught.value)


def test_a_sweep_must_be_there_and_be_examined_for_something(tmp_path, store):
    with pytest.raises(ValueError, match=r"^sweep must be a folder with completed runs in it, got .*/nowhere$"):
        reports_of(store, "robustness=quick", sweep_dir=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"^robustness must be given with sweep, got sweep=.* alone$"):
        measure(compose([], "eval", store_dir=store, sweep_dir=tmp_path))


NAMES = ["10", "2", "cat"]


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory, store):
    """A control that is trained on a folder of images, which are sorted by class, and attacked at its end."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for part, n in (("train", 40), ("test", 60)):
        for label, name in enumerate(NAMES):
            (root / part / name).mkdir(parents=True)
            for number in range(n):
                values = random.integers(0, 60, (8, 8, 3)).astype(np.uint8) + 80 * np.uint8(label)
                Image.fromarray(values).save(root / part / name / f"{number}.png")
    settings = ["dataset=image_folder", f"dataset.source.root={root}", "dataset.source.size=8", "dataset.num_classes=3",
                "dataset.num_workers=0", "dataset.batch_size=16", "robustness=attacks", "robustness.samples=75",
                "robustness.attacks.samples=30", "robustness.attacks.checks=false", "robustness.n_resamples=100",
                "~robustness.attacks.kinds.pgd_l2", "robustness.attacks.kinds.pgd_linf.steps=2"]  # fmt: skip
    folder = tmp_path_factory.mktemp("folder_run")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("roc", "confusion"):
            patch.setattr(
                png_figures, name, lambda curves, classes, path: path.with_suffix(".names").write_text(repr(classes))
            )
        run(compose([*SMOKE, *settings, "alpha=1"], output_dir=folder, store_dir=store))
    return folder


def test_attacks_and_all_else_are_tried_on_samples_of_every_class_and_the_report_says_how_many(folder_run, capsys):
    report = json.loads((folder_run / "robustness.json").read_text())
    assert report["sample_counts"] == {
        "test": {"samples": 75, "classes": dict.fromkeys(NAMES, 25)},
        "attacks": {"samples": 30, "classes": dict.fromkeys(NAMES, 10)},
    }
    show(report, folder_run)
    assert "samples, attacks: 30 (10: 10, 2: 10, cat: 10)" in capsys.readouterr().out
    assert "Samples, test: 75 (10: 25, 2: 25, cat: 25)." in list(words([report]))
    del report["sample_counts"]  # as before
    show(report, folder_run)


def test_a_curve_of_attacks_begins_with_the_clean_accuracy_of_the_attacked_samples(folder_run, store):
    config = OmegaConf.create(results.read(folder_run, "run")["config"])
    evaluator = RobustnessEvaluator(Experiment(config), torch.device("cpu"))
    clean = evaluator.conditions[0]
    (attack,) = {tuple(cell.positions.tolist()) for cell in evaluator.conditions[1:]}
    subject = {"control": run_subject(Experiment(config), folder_run, torch.device("cpu"))}
    right = evaluator.measurements.of(clean, subject)["control"].samples["right"][list(attack)]
    fgsm = [cell for cell in evaluator.conditions if cell.name == "fgsm"]
    under = [evaluator.measurements.of(cell, subject)["control"] for cell in fgsm]
    eps = [0, *(cell.level for cell in fgsm)]
    wanted = np.trapezoid([float(right.mean()), *(float(one.samples["right"].mean()) for one in under)], eps) / eps[-1]
    report = json.loads((folder_run / "robustness.json").read_text())
    assert report["metrics"]["attacks"]["fgsm"]["mean_acc"]["control"] == pytest.approx(wanted)


def test_the_names_of_the_folders_are_the_classes_of_the_run_and_leave_its_identity_alone(folder_run):
    saved = results.read(folder_run, "run")
    assert saved["config"]["dataset"]["classes"] == NAMES
    assert saved["fingerprint"] == Identity(saved["config"]).fingerprint
    nobody_named = {**saved["config"], "dataset": {**saved["config"]["dataset"], "classes": None}}
    del nobody_named["dataset"]["classes_from_data"]
    assert saved["fingerprint"] == Identity(nobody_named).fingerprint
    assert saved["control_fingerprint"] == Identity(nobody_named).control_fingerprint
    (found,), _ = find([folder_run])
    assert found.settings["dataset.classes"] is None
    assert "dataset.classes_from_data" not in found.settings
    assert Comparison([found]).class_names == NAMES
    for name in ("roc", "confusion"):
        assert (folder_run / "figures" / f"{name}.names").read_text() == repr(NAMES)
    assert measure(compose([], "eval", run=folder_run))["acc"] == saved["metrics"]["test"]["best"]["acc"]


def keys(*overrides):
    config = compose([*SMOKE, "dataset=digits", "robustness=quick", *overrides], output_dir="", data_dir="/nowhere")
    evaluator = RobustnessEvaluator(Experiment(config), torch.device("cpu"))
    return {cell.axis: evaluator.measurements.key(cell, "student", "teacher") for cell in evaluator.conditions}


WHOLE = ("robustness.samples=null", "robustness.attacks.samples=null", "robustness.ood.dataset=synthetic",
         "robustness.shift.dataset=digits")  # fmt: skip


def test_conditions_of_whole_splits_have_the_keys_that_they_always_had():
    assert keys(*WHOLE) == {
        "clean": "4d4ee4a6732ed005", "corruptions_lite": "f46dc4d8e21e6b49", "noise_levels": "fe0a6ae386196a57",
        "attacks": "9dc4beeb4ea6720f", "attack_more_steps": "4f67edc7e74477dc",
        "attack_unbounded": "915e8785e7316838", "shift": "e8e857ad9a5843e4", "ood": "4585787d7c025cca",
        "calibration": "e30d5ba379795711", "representations": "c6db6529afa53e20",
    }  # fmt: skip


def test_conditions_of_other_samples_have_other_keys(monkeypatch):
    whole = keys(*WHOLE)
    part = keys(*WHOLE, "robustness.samples=100")
    assert not set(whole.values()) & set(part.values())
    attacked = keys(*WHOLE, "robustness.attacks.samples=100")
    assert {axis for axis in whole if whole[axis] != attacked[axis]} == {
        "attacks", "attack_more_steps", "attack_unbounded",
    }  # fmt: skip
    fitted = keys(*WHOLE, "robustness.representations.train_samples=20")
    assert {axis for axis in whole if whole[axis] != fitted[axis]} == {"representations"}
    # As samples were chosen before, without a look at their classes.
    monkeypatch.setattr(
        robustness_inputs, "stratified_sample", lambda target, count, seed: torch.arange(len(target))[:count]
    )
    assert not set(keys(*WHOLE, "robustness.samples=100").values()) & set(part.values())


def test_an_attack_that_was_measured_on_fewer_samples_is_not_taken_for_one_on_all(copied, store, monkeypatch):
    settings = ("robustness=attacks", "robustness.n_resamples=100", "robustness.attacks.checks=false",
                "~robustness.attacks.kinds.pgd_l2", "~robustness.attacks.kinds.pgd_linf")  # fmt: skip
    with monkeypatch.context() as before:
        before.setattr(Condition, "on", lambda cell, *parts: cell)  # the keys were the same for any number
        reports_of(store, *settings, "robustness.attacks.samples=30", run=copied / "0")
    (report,) = reports_of(store, *settings, "robustness.attacks.samples=null", run=copied / "0").values()
    assert report["sample_counts"]["attacks"]["samples"] == report["samples"] == 256
    # Shares of 256 samples, and not of 30.
    clean, *_ = (row["acc"] for row in report["conditions"] if row["axis"] == "clean")
    first, *_ = (row["acc"] for row in report["conditions"] if row["axis"] == "attacks")
    assert all(value * 256 == pytest.approx(round(value * 256), abs=1e-3) for value in (clean, first))
    assert any(row["acc"] * 30 != pytest.approx(round(row["acc"] * 30), abs=1e-3) for row in report["conditions"])


def test_a_wrong_setting_is_heard_before_anything_is_trained(tmp_path, store):
    wrong = ["robustness=attacks", "robustness.attacks.kinds.fgsm.eps=[2]"]
    with pytest.raises(ValueError, match=r"^robustness.attacks.kinds.fgsm: eps of an attack"):
        run(compose([*SMOKE, *wrong], output_dir=tmp_path, store_dir=store))
    assert not (tmp_path / "checkpoints").exists()


def test_images_of_another_shape_and_colour_are_brought_to_ones_own(store, sweep, tmp_path):
    colour = ["dataset.input_shape=[3,12,12]", "dataset.mean=[0.5,0.5,0.5]", "dataset.std=[0.2,0.2,0.2]",
              "dataset.source.train_samples=128", "dataset.source.test_samples=70"]  # fmt: skip
    config = compose([*SMOKE, *colour, "robustness=ood", "robustness.ood.dataset=synthetic", *SMALL],
                     output_dir=tmp_path, store_dir=store)  # fmt: skip
    evaluator = RobustnessEvaluator(Experiment(config), torch.device("cpu"))
    own, other = evaluator.conditions[0], evaluator.conditions[1]
    seen = []
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(432, 10))

    def watching(images):
        seen.append(images)
        return network(images)

    for cell in (own, other):
        cell.measure(Networks({"student": watching}))
    for images in seen:
        assert images.shape[1:] == (3, 12, 12)
        assert images.min() >= 0
        assert images.max() <= 1
    levels = seen[0] * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("stored", "said"),
    [({"acc": 0.5, "auc": 0.7}, True), ({"acc": 0.5, "auc": math.nan}, False), ({"acc": math.nan, "auc": 0.7}, False)],
)
def test_a_value_that_is_not_a_number_is_not_equal_to_one(tmp_path, stored, said):
    facts = {"config": plain(compose(output_dir="")), "overrides": [], "seed": 0, "is_control": True,
             "control_fingerprint": "c", "schema_version": 2, "status": "completed"}  # fmt: skip
    results.write(tmp_path, facts | {"metrics": {"test": {"best": {**stored, "ece": None}}}})
    assert show_metrics(tmp_path, {"acc": 0.5, "auc": 0.7, "ece": 0.1}) is said
    assert not show_metrics(tmp_path, {"acc": 0.5, "auc": math.nan})
    with pytest.raises(ValueError, match=r"^run must have metrics on test, got none in "):
        show_metrics(tmp_path, {"ece": 0.1})
