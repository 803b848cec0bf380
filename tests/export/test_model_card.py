import json
import math
import statistics

import pytest
import yaml
from scipy import stats
from written_runs import write_report, write_run

from kdexp import results
from kdexp.export import model_card


def front_matter(text):
    first, rest = text.split("---\n", 2)[1:]
    return yaml.safe_load(first), rest


def changed(folder, **values):
    results.write(folder, {**results.read(folder, "run"), **values})


def test_the_card_of_a_run_says_what_its_results_say(tmp_path):
    write_run(tmp_path / "run", acc=0.9, seed=3, loss="dkd")
    changed(tmp_path / "run", versions={"kdexp": "0.1.0"}, fingerprint="abc123")
    text = model_card.card(tmp_path / "run")
    matter, said = front_matter(text)
    assert matter["license"] == "other"
    assert matter["model-index"][0]["results"][0]["metrics"] == [{"type": "acc", "name": "accuracy", "value": 0.9}]
    assert "distilled from the teacher cnn" in said
    assert "| loss | dkd |" in said
    low, high = stats.binomtest(180, 200).proportion_ci(method="wilson")
    assert f"| accuracy | 90.00 % | {100 * low:.2f} to {100 * high:.2f} | 99.00 % |" in said
    assert "There is one seed" in said
    assert said.count("TO BE FILLED IN") == 2
    assert "    kdexp-train " in said
    assert "seed=3" in said
    assert "Not measured: `kdexp-eval run=RUN robustness=quick` does." in said
    assert "Not stated: there was no control" in said


def test_the_runs_of_other_seeds_give_an_interval_and_a_control_has_no_teacher(tmp_path):
    values = [0.90, 0.92, 0.97]
    for seed, acc in enumerate(values):
        write_run(tmp_path / f"one-{seed}", seed=seed, acc=acc)
        write_run(tmp_path / f"control-{seed}", seed=seed, acc=0.8, alpha=1.0)
    half = stats.t.ppf(0.975, 2) * statistics.stdev(values) / math.sqrt(3)
    mean = statistics.mean(values)
    said = model_card.card(tmp_path / "one-1")
    assert f"| {100 * mean:.2f} % | {100 * (mean - half):.2f} to {100 * (mean + half):.2f} |" in said
    alone = model_card.card(tmp_path / "control-1")
    assert "trained alone" in alone
    assert "| temperature" not in alone


def test_the_length_of_a_training_is_told_as_it_was_set(tmp_path):
    write_run(tmp_path / "epochs", **{"trainer.max_epochs": 30})
    write_run(tmp_path / "steps", **{"trainer.max_epochs": 30, "trainer.max_steps": 2000})
    assert "| trainer.max_epochs | 30 |" in model_card.card(tmp_path / "epochs")
    said = model_card.card(tmp_path / "steps")
    assert "| trainer.max_steps | 2000 |" in said
    assert "max_epochs |" not in said


def test_a_quick_run_beside_a_real_one_is_neither_a_seed_of_it_nor_worth_a_word(tmp_path, caplog):
    for seed, is_quick in enumerate([False, False, True]):
        write_run(tmp_path / f"one-{seed}", seed=seed, quick=is_quick)
    assert "mean of 2 seeds" in model_card.card(tmp_path / "one-0")
    assert "There is one seed" in model_card.card(tmp_path / "one-2")
    assert not caplog.messages


def test_robustness_what_was_lost_and_the_exported_file_are_told(tmp_path):
    write_run(tmp_path / "run")
    write_report(tmp_path / "run")
    lines = {"acc": {"student": 0.9, "control": 0.95, "verdict": "worse"},
             "ece": {"student": 0.1, "control": 0.1, "verdict": "not significant"}}  # fmt: skip
    statement = {"headline": "worse: accuracy", "lines": lines, "not_measured": ["OOD detection"]}
    note = "quick run: its numbers mean nothing"
    changed(tmp_path / "run", loss_statement=statement, note=note)
    latency = [{"batch": 1, "median_ms": 0.25, "p95_ms": 0.5, "calls": 9}]
    row = {"format": "onnx", "quantize": "int8_static", "bytes": 12345, "metrics": {"acc": 0.875}, "latency": latency}
    export = {"measure": "acc", "threads": 1, "processor": "a CPU", "rows": [row], "note": note}
    said = model_card.write(tmp_path / "out", tmp_path / "run", export).read_text()
    assert said.count("**quick run: its numbers mean nothing**") == 2
    assert front_matter(said)[0]["model-index"] == []
    assert "| accuracy | 0.9 | 0.95 | worse |" in said
    assert "Not measured: OOD detection." in said
    assert "| onnx | int8_static | 12,345 | 87.50 % | batch 1: 0.25 ms |" in said
    assert "Robustness" in said
    assert "noise" in said
    assert "- shift left out" in said


def test_a_control_that_only_the_report_of_the_file_knows_is_pointed_to(tmp_path):
    write_run(tmp_path / "run")
    (tmp_path / "out").mkdir()
    write_report(tmp_path / "out")
    said = model_card.write(tmp_path / "out", tmp_path / "run", {"rows": []}).read_text()
    assert "Not stated" not in said
    assert "Since then one was measured: its column, and the answer in a sentence, stand under Robustness." in said
    assert "|  | teacher | control | student |" in said


def test_what_somebody_else_wrote_stays_a_value(tmp_path):
    evil = 'a\n---\nlicense: mit\n# Heading | <script>\x1b[2J"'
    write_run(tmp_path / "run", dataset=evil)
    matter, said = front_matter(model_card.card(tmp_path / "run"))
    assert matter["license"] == "other"
    assert "\n# Heading" not in said
    assert "<script>" not in said
    assert "\x1b" not in said


@pytest.mark.parametrize("status", ["diverged", "running"])
def test_a_run_that_is_not_finished_has_no_card(tmp_path, status):
    write_run(tmp_path / "run", status=status)
    with pytest.raises(ValueError, match=r"^run must be completed and measured on test, got "):
        model_card.card(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == status


def test_what_somebody_filled_in_stays_with_the_next_export(tmp_path):
    write_run(tmp_path / "run", acc=0.9)
    out = tmp_path / "out"
    out.mkdir()
    path = model_card.write(out, tmp_path / "run")
    first = path.read_text()
    assert model_card.write(out, tmp_path / "run").read_text() == first
    own = first.replace("**TO BE FILLED IN**: for what, by whom, and for what not.", "Cheques.\n\n- No faces.")
    own = own.replace('license: "other"\nlicense_name: "to-be-filled-in"', "license: mit")
    path.write_text(own.replace("| accuracy | 90.00 %", "| accuracy | 99.99 %"))
    model_card.write(out, tmp_path / "run", names=(model_card.FILE, model_card.HUB_FILE))
    assert path.read_text() == (out / model_card.HUB_FILE).read_text() == own
    assert yaml.safe_load(own.split("---\n")[1])["license"] == "mit"
    assert own.count("TO BE FILLED IN") == 1
