import json

import numpy as np
import pytest
from scipy import stats

from kdexp.report import decisions
from kdexp.report.comparison import Comparison
from kdexp.report.decisions import Decisions
from kdexp.report.loss_statement import of_comparison
from kdexp.report.loss_statement_files import keep_again, keep_all, write_statement
from kdexp.report.loss_statement_text import as_json, headline, markdown, sentences
from kdexp.report.runs import find
from kdexp.report.sections import loss_statement as section
from kdexp.report.summary_text import answer
from kdexp.report.terminal import show_run

MARGINS = {"margins": {"acc": 0.01, "ece": 0.01, "auroc": 0.01}, "relative_margins": {"nll": 0.1}, "acceptable": ""}
NOISE = [-0.002, -0.001, 0.0, 0.001, 0.002, 0.003]


def add(folder, change):
    path = folder / "results.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def metrics(folder, confusion=None, **values):
    """Give a written run more metrics on test."""

    def change(record):
        record["metrics"]["test"]["best"] |= values
        if confusion is not None:
            record["curves"]["confusion"] = confusion

    add(folder, change)


@pytest.fixture
def mixed(tmp_path, write_run):
    """Six seeds of a student that is better on average, worse in class 2 and in ECE, as good in NLL; Brier is open."""
    for seed, noise in enumerate(NOISE):
        control, student = tmp_path / f"control-{seed}", tmp_path / f"student-{seed}"
        write_run(control, alpha=1.0, seed=seed, acc=0.80, loss_statement=MARGINS)
        write_run(student, seed=seed, acc=0.84 + noise, loss_statement=MARGINS)
        wrong = 10 * seed % 3  # whole samples
        metrics(control, [[80, 10, 10], [10, 80, 10], [10, 10, 80]], ece=0.03, nll=0.5, brier=0.3)
        metrics(
            student,
            [[90, 5, 5], [5, 89 - wrong, 6 + wrong], [12, 15 + wrong, 73 - wrong]],
            ece=0.06 + noise,
            nll=0.5 + noise,
            brier=0.3 + 40 * noise,
        )
    return tmp_path


def stated(folder, **more):
    return of_comparison(Comparison(find([folder])[0], **more))


def verdicts(statement):
    return {line.name: line.verdict for line in (*statement.lines, *statement.classes)}


def test_a_student_that_is_better_on_average_and_worse_somewhere_is_said_to_be(mixed):
    statement = stated(mixed)
    assert verdicts(statement) == {
        "acc": "better",
        "ece": "worse",
        "nll": "kept",
        "brier": "not significant",
        "class 0": "not tested",  # every seed gains the same
        "class 1": "better",
        "class 2": "worse",
    }
    assert headline(statement) == (
        "better: accuracy, class 1; worse: ECE, class 2; kept: NLL; not significant: 1 of 4 lines"
    )
    written = markdown(statement, "mlp on digits")
    lost = written.split("## What was lost")[1].split("##")[0]
    assert "ECE is worse: 6.05 % against the control's 3.00 %, +3.05 points" in lost
    assert "Accuracy of class 2 is worse" in lost
    assert "Accuracy is better: 84.05 %" in written.split("## What was kept")[1].split("##")[0]
    assert "## Why that is acceptable\n\n- Nobody has said why." in written
    assert "arXiv 2604.25110" in written
    assert "arXiv 2510.12615" in written
    (page,) = section.sections(Comparison(find([mixed])[0]))
    assert "What was lost: ECE is worse" in page.lead
    assert f"Kept and lost (loss_statement.md): {headline(statement)}." in answer(Comparison(find([mixed])[0]))


def test_the_measure_is_tested_alone_and_the_rest_by_holm_together(mixed):
    lines = {line.name: line for line in stated(mixed).lines}
    alone = stats.ttest_1samp([0.04 + noise for noise in NOISE], 0).pvalue
    assert (lines["acc"].p, lines["acc"].tests) == (pytest.approx(alone, rel=1e-6), 1)
    of_noise = stats.ttest_1samp(NOISE, 0).pvalue
    assert lines["ece"].p == pytest.approx(3 * stats.ttest_1samp([0.03 + noise for noise in NOISE], 0).pvalue, rel=1e-6)
    assert [lines[name].p for name in ("nll", "brier")] == pytest.approx([min(1, 2 * of_noise)] * 2, rel=1e-6)
    assert lines["nll"].margin == pytest.approx(0.05), "a tenth of the control's"
    low, high = stats.t.interval(0.9, 5, np.mean(NOISE), stats.sem(NOISE))
    assert -0.05 < low < high < 0.05, "so it is kept"


def test_the_worst_group_is_stated_with_the_size_of_the_smallest(mixed):
    for run in mixed.iterdir():
        metrics(run, worst_group=0.7)
    (line,) = [line for line in stated(mixed).lines if line.name == "worst_group"]
    assert line.metric.name == "accuracy of the worst group", "a run of before has no counts"
    for run in mixed.iterdir():
        add(run, lambda record: record.update(samples_of_group={"f": 1200, "m": 31}))
    statement = stated(mixed)
    (line,) = [line for line in statement.lines if line.name == "worst_group"]
    assert line.metric.name == "accuracy of the worst group (the smallest has 31 test samples)"
    assert "31 test samples" in markdown(statement, "subject")


def test_a_line_of_fewer_seeds_says_so(mixed):
    for seed in (0, 3):
        add(mixed / f"student-{seed}", lambda record: record["metrics"]["test"]["best"].pop("ece"))
    text = markdown(stated(mixed), "subject")
    (said,) = [line for line in text.splitlines() if line.startswith("- ECE is worse")]
    assert "points (4 of 6 seeds) (95 % t interval" in said
    assert "| ECE, % (4 of 6 seeds) |" in text
    assert "NLL (" not in text


def test_two_that_are_without_error_are_as_good_and_two_that_know_nothing_are_not(mixed):
    for run in mixed.iterdir():
        metrics(run, worst_class=0.0, coverage_at_5=0.0, ece=0.0)
    found = {line.name: line for line in stated(mixed).lines}
    assert found["ece"].verdict == "kept"
    assert found["worst_class"].verdict == "not significant"
    said = sentences(stated(mixed))["What the seeds leave open"]
    assert not [line for line in said if "a difference of 0.00" in line]


def test_feature_losses_are_named_and_no_placebos(tmp_path, write_run):
    for seed in range(3):
        write_run(tmp_path / f"control-{seed}", alpha=1.0, seed=seed, acc=0.8)
        write_run(tmp_path / f"student-{seed}", alpha=1.0, seed=seed, acc=0.8 + 0.01 * (seed + 1))
        features = {"loss": "label_smoothing", "feature_loss": "at"}
        add(tmp_path / f"student-{seed}", lambda record, own=features: record.update(
            is_control=False, choices=record["choices"] | own))  # fmt: skip
        add(tmp_path / f"student-{seed}", lambda record: record["config"].update(feature_loss={"at": {"weight": 1}}))
    statement = stated(tmp_path)
    assert statement is not None, "a trained teacher's features are no placebo"
    assert statement.label == "feature_loss=at alpha=1"
    keep_all(Comparison(find([tmp_path])[0]))
    assert (
        "feature_loss=at alpha=1 seed=0 against its control" in (tmp_path / "student-0/loss_statement.md").read_text()
    )


def test_a_comparison_without_a_control_leaves_no_statement_of_an_earlier_one(mixed):
    everything, students = Comparison(find([mixed])[0]), [run for run in find([mixed])[0] if not run.is_control]
    assert write_statement(everything, "subject", mixed)
    assert (mixed / "loss_statement.md").is_file()
    assert write_statement(Comparison(students), "subject", mixed) == []
    assert not (mixed / "loss_statement.md").exists()
    keep_all(everything)
    assert write_statement(Comparison(students[:1]), "subject", students[0].folder) == []
    assert (students[0].folder / "loss_statement.md").is_file(), "a run's own stays"


def test_what_was_not_measured_is_named_and_the_reason_is_the_users(mixed):
    statement = stated(mixed)
    assert {"accuracy of the worst class", "AURC", "accuracy under attacks", "ECE under corruptions"} <= set(
        statement.not_measured
    )
    said = sentences(statement)["Not measured"]
    assert "Accuracy of the worst group." in said
    assert "privacy" in said[-1]
    for run in mixed.glob("student-*"):
        add(run, lambda record: record["config"]["loss_statement"].update(acceptable="small\x1b enough"))
    assert sentences(stated(mixed))["Why that is acceptable"] == [r"small\x1b enough"]
    assert sentences(stated(mixed, acceptable="it is a toy"))["Why that is acceptable"] == ["it is a toy"]


def test_one_seed_is_not_tested_and_its_losses_are_said_all_the_same(tmp_path, write_run, capsys):
    write_run(tmp_path / "control", alpha=1.0, acc=0.8)
    write_run(tmp_path / "student", acc=0.84)
    metrics(tmp_path / "control", [[8, 2, 0], [0, 8, 2], [0, 0, 10]], ece=0.03)
    metrics(tmp_path / "student", [[10, 0, 0], [0, 10, 0], [4, 0, 6]], ece=0.05)
    statement = stated(tmp_path)
    assert headline(statement) == (
        "better on average, not tested: accuracy; worse on average, not tested: ECE, class 2"
    )
    assert sentences(statement)["What was kept"] == ["Nothing was shown to be better or kept."]
    assert "No loss was shown, which does not show that there is none." in sentences(statement)["What was lost"]
    show_run(tmp_path / "student")
    shown = " ".join(capsys.readouterr().out.split())
    assert f"statement {tmp_path}/student/loss_statement.md: {headline(statement)}" in shown
    kept = json.loads((tmp_path / "student" / "results.json").read_text())["loss_statement"]
    assert kept == json.loads(json.dumps(as_json(statement)))
    assert (kept["lines"]["ece"]["verdict"], kept["lines"]["ece"]["p"]) == ("not tested", None)


def test_what_was_measured_later_is_stated_where_the_control_lies_beside_the_run_or_in_it(tmp_path, write_run):
    for place in ("control", "alone/control"):
        run = (tmp_path / place).parent / "student" if place == "control" else (tmp_path / place).parent
        write_run(tmp_path / place, alpha=1.0, acc=0.8)
        write_run(run, acc=0.84)
        assert not (run / "loss_statement.md").exists()
        keep_again(run)
        assert "accuracy" in (run / "loss_statement.md").read_text()
    keep_again(tmp_path / "control")
    assert not (tmp_path / "control" / "loss_statement.md").exists()


def test_nothing_is_stated_without_a_control_or_of_numbers_that_mean_nothing(tmp_path, write_run):
    write_run(tmp_path / "student")
    assert stated(tmp_path) is None
    assert list(section.sections(Comparison(find([tmp_path])[0]))) == []
    write_run(tmp_path / "control", alpha=1.0)
    assert stated(tmp_path) is not None
    for name in ("student", "control"):
        add(tmp_path / name, lambda record: record["config"].update(quick=True))
    assert stated(tmp_path) is None


def test_a_run_of_before_there_were_margins_keeps_nothing(mixed):
    for run in mixed.iterdir():
        add(run, lambda record: record["config"].pop("loss_statement"))
    assert verdicts(stated(mixed))["nll"] == "not significant", "a margin is set before the run, or there is none"


def test_the_controls_agreement_with_the_teacher_stands_beside_the_students(tmp_path, write_run):
    """Of ten samples the teacher has 8 right; the student decides as it on 7 and 2 of them, the control on 6 and 1."""
    label = np.zeros(10, np.int32)
    teacher = np.array([0] * 8 + [1] * 2, np.int32)
    student = np.array([0] * 7 + [2] + [1] * 2, np.int32)
    alone = np.array([0] * 6 + [2] * 2 + [1, 2], np.int32)
    write_run(tmp_path / "control", alpha=1.0)
    write_run(tmp_path / "student")
    metrics(tmp_path / "student", agreement_teacher_right=7 / 8, agreement_teacher_wrong=1.0)
    decisions.write(Decisions(label, alone), tmp_path / "control")
    decisions.write(Decisions(label, student, teacher), tmp_path / "student")
    found = {line.name: line.difference.mean for line in stated(tmp_path).lines}
    assert found["agreement_teacher_right"] == pytest.approx(0.125)
    assert found["agreement_teacher_wrong"] == pytest.approx(0.5)
    lost = sentences(stated(tmp_path))["What was lost"]
    assert not any("taken over" in text for text in lost), "one seed is no test"
    keep_all(Comparison(find([tmp_path])[0]))
    kept = json.loads((tmp_path / "student" / "results.json").read_text())["control_agreement"]
    assert kept == pytest.approx(
        {"agreement": 0.7, "agreement_teacher_right": 0.75, "agreement_teacher_wrong": 0.5, "teacher_wrong": 2}
    )
    before = (tmp_path / "student" / "results.json").stat().st_mtime_ns
    keep_all(Comparison(find([tmp_path])[0]))
    assert (tmp_path / "student" / "results.json").stat().st_mtime_ns == before, "what is there is not written again"
    (tmp_path / "control" / decisions.FILE).unlink()
    assert "agreement_teacher_wrong" in verdicts(stated(tmp_path)), "it is kept with the run"


def test_robustness_gives_means_over_corruptions_attacks_and_other_data(mixed):
    def rows(role, drop):
        for severity, name in enumerate(("fog", "blur"), start=1):
            yield {
                "axis": "corruptions_lite", "name": name, "level": severity, "model": role,
                "acc": 0.8 - severity * drop, "ece": 0.1 * severity,
            }  # fmt: skip
        yield {"axis": "attacks", "name": "pgd", "level": 0.1, "model": role, "acc": 0.5 - drop}
        yield {"axis": "clean", "name": "clean", "level": 0, "model": role, "acc": 0.9, "ece": 0.01}

    for seed, noise in enumerate(NOISE):
        near = {"control": 0.9, "student": 0.85 + noise}
        attacked = {"control": 0.6, "student": 0.4 - noise}  # with the clean accuracy: no mean of the rows
        report = {
            "schema_version": 2,
            "accuracy_under": {"attacks": attacked},
            "conditions": [*rows("control", 0.1), *rows("student", 0.2 + noise)],
            "metrics": {"ood": {"near": {"msp_auroc": near, "energy_auroc": near}, "mnist8": {"msp_auroc": near}}},
        }
        (mixed / f"student-{seed}" / "robustness.json").write_text(json.dumps(report))
    lines = {line.name: line for line in stated(mixed).lines}
    assert lines["corruptions acc"].control == pytest.approx(0.65)
    assert lines["corruptions acc"].student == pytest.approx(0.65 - 1.5 * (0.1 + np.mean(NOISE)))
    assert lines["corruptions acc"].verdict == lines["attacks acc"].verdict == "worse"
    assert (lines["attacks acc"].control, lines["attacks acc"].student) == pytest.approx((0.6, 0.4 - np.mean(NOISE)))
    assert (lines["corruptions ece"].student, lines["corruptions ece"].verdict) == (pytest.approx(0.15), "kept")
    assert lines["ood near auroc"].verdict == "worse"
    assert not [name for name in lines if "mnist8" in name or "energy" in name], "near and far stand for their lists"
    assert "FPR95 of OOD detection, near" in stated(mixed).not_measured


def test_what_distillation_gives_beyond_placebos_is_corrected_over_them(mixed, write_run):
    for seed, noise in enumerate(NOISE):
        write_run(mixed / f"smooth-{seed}", loss="matched_smoothing", seed=seed, acc=0.82, val=0.99)
        write_run(mixed / f"random-{seed}", seed=seed, acc=0.84 - noise)
        add(mixed / f"random-{seed}", lambda record: record["config"]["teacher"].update(weights="random"))
        add(mixed / f"random-{seed}", lambda record: record["teacher"]["test"].update(acc=0.1))
    assert [name for name in Comparison(find([mixed])[0]).teachers if name.endswith(" of random weights")]
    statement = stated(mixed)
    assert "matched_smoothing" not in statement.label, "a placebo is not what is stated, whatever val says"
    found = {line.name: (line.verdict, line.difference.mean, line.tests) for line in statement.placebos}
    (smooth,) = (value for name, value in found.items() if "matched_smoothing" in name)
    (random,) = (value for name, value in found.items() if "matched_smoothing" not in name)
    assert smooth == ("better", pytest.approx(0.02 + np.mean(NOISE)), 2)
    assert random == ("kept", pytest.approx(2 * np.mean(NOISE)), 2)
    said = sentences(statement)["Beyond placebos"]
    assert any(text.startswith("The teacher gives more than loss=matched_smoothing") for text in said)
    assert any(text.startswith("The teacher gives the same, within the margin, as ") for text in said)


def test_a_damaged_file_of_decisions_is_no_reason_to_state_nothing(tmp_path, write_run):
    write_run(tmp_path / "control", alpha=1.0)
    write_run(tmp_path / "student")
    for name in ("control", "student"):
        (tmp_path / name / decisions.FILE).write_bytes(b"PK\x03\x04")
    assert "agreement with the teacher where it is wrong" in stated(tmp_path).not_measured
    with pytest.raises(ValueError, match="must hold decisions of a run"):
        decisions.read(tmp_path / "student")


@pytest.mark.parametrize(
    "arrays",
    [
        {"label": np.zeros(3, np.int64), "student": np.zeros(3, np.int32)},
        {"label": np.zeros(3, np.int32), "student": np.zeros(4, np.int32)},
        {"label": np.zeros(0, np.int32), "student": np.zeros(0, np.int32)},
        {"label": np.zeros(3, np.int32), "student": np.array([None] * 3)},
    ],
)
def test_decisions_of_somebody_else_are_checked(tmp_path, arrays):
    np.savez(tmp_path / decisions.FILE, **arrays)
    with pytest.raises(ValueError, match="must hold decisions of a run"):
        decisions.read(tmp_path)


def test_labels_of_other_samples_give_no_agreement():
    one, other = np.array([0, 1], np.int32), np.array([1, 0], np.int32)
    assert decisions.agreement_of_control(Decisions(one, one, one), Decisions(other, one)) == {}
    assert decisions.agreement_of_control(Decisions(one, one), Decisions(one, one)) == {}


def test_samples_without_a_label_count_in_the_agreement_alone():
    label, teacher = np.array([0, 1, -1], np.int32), np.array([0, 0, 2], np.int32)
    found = decisions.agreement_of_control(Decisions(label, teacher, teacher), Decisions(label, teacher))
    assert found == {"agreement": 1, "agreement_teacher_right": 1, "agreement_teacher_wrong": 1, "teacher_wrong": 1}


def test_what_is_stated_is_named_where_a_placebo_was_chosen(mixed, write_run):
    for seed in range(6):
        write_run(mixed / f"smooth-{seed}", loss="matched_smoothing", seed=seed, acc=0.82, val=0.99)
    comparison = Comparison(find([mixed])[0])
    (said,) = (text for text in answer(comparison) if text.startswith("Kept and lost"))
    assert said.startswith("Kept and lost by loss=kd (loss_statement.md): better: accuracy")
    assert of_comparison(comparison).candidates == 1
