"""kdexp-eval with robustness, on a small run of texts."""

import json

import pytest
import torch
from test_text_runs import questions  # noqa: F401 (a fixture)

from kdexp.config.compose import compose
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.finished_robustness import robustness
from kdexp.experiment.robustness_inputs import SplitBatches
from kdexp.experiment.run import run
from kdexp.report import text_examples

FEW = ("robustness.n_resamples=100", "robustness.corruptions.severities=[5]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, store, questions):  # noqa: F811
    """A control and a distilled student beside it."""
    folder = tmp_path_factory.mktemp("texts")
    for name, alpha in (("0", 1.0), ("1", 0.5)):
        run(compose([*questions, f"alpha={alpha}"], output_dir=folder / name, store_dir=store))
    return folder


def report_of(folder, store, *overrides):
    (found,) = dict(robustness(compose(list(overrides), "eval", run=folder, store_dir=store))).values()
    return found


def test_a_quick_look_takes_what_is_for_texts_and_names_the_rest(runs, store):
    found = report_of(runs / "1", store, "robustness=quick", *FEW)
    assert json.loads((runs / "1" / "robustness.json").read_text())["metrics"] == found["metrics"]
    left = {"clean", "corruptions_lite", "noise_levels", "calibration", "representations"}
    assert set(found["metrics"]) == left
    assert {row["name"] for row in found["conditions"] if row["axis"] == "corruptions_lite"} == {
        "typo_swap", "typo_keyboard", "word_dropout", "word_order", "random_case",
    }  # fmt: skip
    assert {"error_typos", "error_words", "error_case"} <= set(found["metrics"]["corruptions_lite"])
    assert set(found["metrics"]["noise_levels"]) == {"typo_keyboard", "word_dropout"}
    for said in (
        "attacks left out: they change inputs a little, and characters cannot be",
        "corruptions: tabular_noise, missing_values, feature_shift left out: for tables",
        "noise_levels: gaussian_noise, uniform_noise, impulse_noise left out: for images",
    ):
        assert said in found["notes"]
    for axis in ("shift", "ood", "representations"):
        assert any(note.startswith(f"{axis} left out: no data set is paired with csv") for note in found["notes"])


def test_attacks_alone_leave_nothing(runs, store):
    with pytest.raises(ValueError, match=r"^robustness must leave something to measure .*: attacks left out"):
        report_of(runs / "1", store, "robustness=attacks")


def test_another_data_set_that_is_no_text_is_refused_in_one_line(runs, store):
    with pytest.raises(ValueError, match=r"^(robustness\.ood\.dataset|dataset\.source) .*") as raised:
        report_of(runs / "1", store, "robustness=ood", "robustness.ood.dataset=digits")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("length", [5, 400])
def test_texts_of_another_length_are_padded_or_cut(questions, store, length):  # noqa: F811
    experiment = Experiment.compose(*questions, output_dir="unused", store_dir=store)
    module, dataset = experiment.data.student, experiment.config.dataset
    (own,) = (batch.inputs for batch in module.eval_batches("test", torch.device("cpu")))
    (found,) = (batch.inputs for batch in SplitBatches(module, "test", torch.device("cpu"), dataset, [length]))
    assert found.shape == (len(own), length)
    assert found.dtype == own.dtype
    both = min(length, own.shape[1])
    assert torch.equal(found[:, :both], own[:, :both])
    assert not found[:, both:].any()


def test_a_run_keeps_texts_with_what_the_networks_predict(runs):
    control, student = (text_examples.read(runs / name, 2) for name in ("0", "1"))
    assert len(control) == len(student) == 16
    assert all(map(text_examples.TextExample.shows_the_same_as, control, student))
    assert {*control[0].predictions} == {"student"}
    assert [*student[0].predictions] == ["teacher", "student"]
    assert all(example.text.endswith(" ?") for example in student)
    saved = json.loads((runs / "1" / "results.json").read_text())["metrics"]["test"]["best"]
    right = [example.predictions["student"] == example.truth for example in student]
    assert saved["acc"] == pytest.approx(sum(right) / 16)
