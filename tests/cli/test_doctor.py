"""`kdexp-doctor`: the command as a user types it."""

import json

import pytest

pytestmark = pytest.mark.slow  # whole programs

DIGITS = ("dataset=digits", "teacher=cnn_small", "teacher.recipe.max_epochs=5", "trainer=cpu")


TINY = ("experiment=smoke",)


def rows(done) -> dict[str, str]:
    """Check -> its row of the printed table, with the line of advice behind it."""
    found: dict[str, str] = {}
    name = ""
    for line in done.stdout.splitlines():
        name = line[2:32].strip() or name
        found[name] = found.get(name, "") + " " + " ".join(line[2:].split())
    return found


def test_it_says_that_dkd_has_no_non_target_gradient_with_two_classes(command, tmp_path):
    done = command("kdexp-doctor", "loss=dkd", "dataset=breast_cancer", "teacher=mlp")
    row = rows(done)["loss warning"]
    assert "loss=dkd: the non-target term has no gradient with 2 classes" in row
    assert "warning" in row
    assert "with two classes use loss=kd" in row
    assert done.stdout.rstrip().endswith("0 errors, 1 warning, 0 notes")
    assert "Warning" not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left where the command ran"


def test_it_says_so_too_when_the_default_teacher_does_not_take_the_data(command):
    done = command("kdexp-doctor", "loss=dkd", "dataset=breast_cancer", "teacher=cnn", rc=2)
    assert "the non-target term has no gradient with 2 classes" in done.stdout
    assert "not all checks were made" in done.stdout
    assert "cnn takes images" in done.stderr


def test_a_healthy_experiment_is_all_well_and_its_figures_are_those_of_the_experiment(command):
    done = command("kdexp-doctor", *DIGITS)
    found = rows(done)
    assert "0 errors, 0 warnings" in done.stdout
    assert "1293 samples" in found["classes in train"]  # 0.9 of scikit-learn's 1437 training digits
    assert "0.1 * hard + 0.9 * soft" in found["alpha"]
    assert "eval mode, no gradient" in found["teacher frozen"]
    assert "two forward passes agree" in found["teacher deterministic"]
    assert "300 epochs of 20 steps and 1 validation batches" in found["training time"]  # 1293 // 64
    assert "4.81k parameters" in found["size"]  # 64 * 64 + 64 + 64 * 10 + 10


def test_wrong_statistics_and_a_teacher_that_learned_nothing_are_warned_of_but_do_not_fail(command):
    never = ("teacher.recipe.max_epochs=1", "teacher.recipe.optimizer.lr=1e-9")
    found = rows(command("kdexp-doctor", *TINY, *never, "dataset.std=[0.0001]", "alpha=0.9"))
    for check in ("inputs of the student", "inputs of the teacher"):
        assert "warning -> " in found[check]
        assert "mean and" in found[check]
    assert "warning -> it has little to teach" in found["teacher on val"]
    assert "note -> alpha weighs the HARD term here" in found["alpha"]
    assert "is alpha=0.1 meant?" in found["alpha"]


USER_LOSS = """
import torch
from torch import nn

class Bad(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, student_logits, teacher_logits, target):
        value = student_logits.square().mean()
        return {"nan": value * float("nan"), "constant": value.detach(), "far": 1e9 * value}[self.how]
"""


def user_loss(folder, how):
    """Options and environment of a run with a loss of the user's own."""
    (folder / "mine.py").write_text(USER_LOSS)
    (folder / "conf" / "loss").mkdir(parents=True)
    (folder / "conf" / "loss" / "bad.yaml").write_text(f"_target_: mine.Bad\nhow: {how}\n")
    options = (f"--config-dir={folder / 'conf'}", *TINY, "loss=bad")
    return options, {"KDEXP_TRUST": "mine", "PYTHONPATH": str(folder)}


@pytest.mark.parametrize(
    ("how", "row", "words"),
    [
        ("nan", "soft term", "value nan"),
        ("constant", "soft term", "it cannot teach the student"),
    ],
)
def test_a_term_that_is_not_finite_or_has_no_gradient_is_an_error(command, tmp_path, how, row, words):
    options, environment = user_loss(tmp_path, how)
    done = command("kdexp-doctor", *options, rc=1, **environment)
    found = rows(done)
    assert words in found[row]
    assert "error" in found[row]
    assert "ok" in found["hard term"].split()
    if how == "nan":
        assert "the soft loss became NaN or Inf at step 0" in found["NaN/Inf"]


def test_a_term_that_drowns_the_other_is_noted(command, tmp_path):
    options, environment = user_loss(tmp_path, "far")
    found = rows(command("kdexp-doctor", *options, rc=None, **environment))
    assert "note -> hard hardly counts" in found["gradient norm ratio"]


def test_several_ranks_and_terms_that_compare_samples(command):
    found = rows(command("kdexp-doctor", *TINY, "trainer=ddp_cpu", "loss=dist", "student=cnn_small"))
    assert "64 samples of all 2 ranks, 32 each note" in found["batch"]
    assert "soft note -> computed on the global batch of all 2 ranks, 64 samples" in found["batch-dependent losses"]
    assert "the run has 2" in found["training time"]


@pytest.mark.parametrize("scheme", ["ema", "mutual", "born_again"])
def test_schemes_are_examined_by_their_first_run(command, scheme):
    found = rows(command("kdexp-doctor", *TINY, f"scheme={scheme}"))
    assert "cosine" in found["soft term"]
    assert ("scheme" in found) == (scheme == "born_again")
    assert ("teacher frozen" in found) == (scheme == "born_again")
    assert not any("hard_" in check for check in found), "a peer's own terms do not act on the student"


def test_the_control_has_one_term_and_no_teacher(command):
    found = rows(command("kdexp-doctor", *TINY, "alpha=1"))
    assert "no teacher: the control" in found["size"]
    assert "hard term" in found
    assert not {"soft term", "alpha", "teacher frozen", "teacher on val", "batch-dependent losses"} & set(found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("alpha=2",), "alpha must be in [0, 1], got 2.0"),
        (("-m", "alpha=0.1,0.2"), "checks one configuration, got --multirun"),
        (("loss=nope",), "nope"),
    ],
)
def test_wrong_input_ends_with_2_and_one_line(command, tmp_path, arguments, words):
    done = command("kdexp-doctor", *arguments, rc=2)
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_to_be_resumed_is_refused_and_stays_as_it_is(command, tmp_path):
    (tmp_path / "results.json").write_text(
        json.dumps({"status": "failed", "config": {}, "overrides": [], "is_control": False})
    )
    done = command("kdexp-doctor", f"resume={tmp_path}", rc=2)
    assert "resume" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_flags_of_hydra_stand_before_or_after_the_settings(command):
    for arguments in (("student=resnet20", "--cfg", "job"), ("--cfg", "job", "student=resnet20")):
        assert "kdexp.models.resnet_cifar.resnet20" in command("kdexp-doctor", *arguments).stdout
    shown = command("kdexp-doctor", "--help").stdout
    assert "kdexp-doctor is a sanity check before a run" in shown
    assert "  kdexp-doctor dataset=cifar100 " in shown
    assert "  kdexp-train" not in shown
