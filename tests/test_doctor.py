"""`kdexp-doctor`: the command as a user types it, and single checks on modules made for them."""

import json
import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdexp import diagnosis
from kdexp.contracts import UNLABELED, Batch, Outputs, Split, Splits
from kdexp.data.loading import DataModule
from kdexp.diagnosis import (
    Finding,
    Measured,
    Moments,
    alpha_convention,
    batches_and_ranks,
    class_counts,
    compares_samples,
    frozen_and_steady,
    normalisation,
    softness,
    teacher_accuracy,
    term_findings,
    unused_parameters,
)
from kdexp.losses.dist import DIST
from kdexp.losses.kd import KD
from kdexp.teacher import Teacher

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


# The command


def test_it_says_that_dkd_has_no_non_target_gradient_with_two_classes(command, tmp_path):
    done = command("kdexp-doctor", "loss=dkd", "dataset=breast_cancer", "teacher=mlp")
    row = rows(done)["a loss warns"]
    assert "loss=dkd: the non-target term has no gradient with 2 classes" in row
    assert "warning" in row
    assert "kd has its whole signal" in row
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
    assert "two passes agree" in found["teacher steady"]
    assert "30 epochs of 20 steps and 1 validation batches" in found["whole training"]  # 1293 // 64
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
        assert "the soft loss became NaN or Inf at step 0" in found["finite numbers"]


def test_a_term_that_drowns_the_other_is_noted(command, tmp_path):
    options, environment = user_loss(tmp_path, "far")
    found = rows(command("kdexp-doctor", *options, rc=None, **environment))
    assert "note -> hard hardly counts" in found["balance of the terms"]


def test_several_ranks_and_terms_that_compare_samples(command):
    found = rows(command("kdexp-doctor", *TINY, "trainer=ddp_cpu", "loss=dist", "student=cnn_small"))
    assert "64 samples of all 2 ranks, 32 each note" in found["batch"]
    assert "soft note -> they see the batch of all 2 ranks, 64 samples" in found["terms that compare samples"]
    assert "the run has 2" in found["whole training"]


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
    assert not {"soft term", "alpha", "teacher frozen", "teacher on val", "terms that compare samples"} & set(found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("alpha=2",), "alpha must be in [0, 1], got 2.0"),
        (("-m", "alpha=0.1,0.2"), "examines one configuration, got --multirun"),
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
    assert "kdexp-doctor takes the settings of kdexp-train" in shown
    assert "  kdexp-doctor dataset=cifar100 " in shown
    assert "  kdexp-train" not in shown


# Single checks


def splits(train, val=(0, 1, 2), test=(0, 1, 2)) -> Splits:
    made = [Split(torch.zeros(len(t), 1), torch.tensor(t), torch.arange(len(t))) for t in (train, val, test)]
    return Splits(*made)


@pytest.mark.parametrize(
    ("train", "verdict", "words"),
    [
        ([0, 1, 2, 2], "ok", "4 samples, 1 to 2 a class"),
        ([0, 1, 1, UNLABELED], "warning", "1 without a label; 1 of 3 classes missing: 2"),
        ([0, 1] + 11 * [2], "note", "1 to 11 a class"),
        ([0, 1] + 10 * [2], "ok", "1 to 10 a class"),
        (3 * [UNLABELED], "ok", "3 without a label"),
    ],
)
def test_classes_are_counted(train, verdict, words):
    finding = class_counts(splits(train), "multiclass", 3)[0]
    assert (finding.verdict, finding.check) == (verdict, "classes in train")
    assert words in finding.found


def test_labels_of_several_classes_are_counted_one_by_one():
    target = [[1.0, 0.0], [1.0, 1.0], [UNLABELED, UNLABELED]]
    finding = class_counts(splits(target, [[1.0, 1.0]], [[1.0, 0.0]]), "multilabel", 2)
    assert "3 samples, 1 to 2 a class, 1 without a label" in finding[0].found
    assert "1 of 2 classes missing: 1" in finding[2].found


def test_the_inputs_that_are_looked_at_are_of_all_classes_though_the_samples_are_sorted(monkeypatch):
    monkeypatch.setattr(diagnosis, "_INPUTS", 30)
    target = torch.arange(300) // 100
    split = Split((target * 100).view(-1, 1, 1, 1).to(torch.uint8), target, torch.arange(300))
    data = DataModule(Splits(split, split, split), augment=[], mean=[0.0], std=[1 / 255], batch_size=10,
                      eval_batch_size=5, drop_last=True, seed=0)  # fmt: skip
    config = SimpleNamespace(trainer=SimpleNamespace(accelerator="cpu"), dataset=SimpleNamespace(mean=[0.0]))
    (finding,) = diagnosis._inputs(config, None, SimpleNamespace(student=data))
    assert finding.found == "mean 100, std 81.6"  # of 0, 100 and 200, ten times each


def test_moments_are_those_of_all_batches_together():
    images, features = torch.randn(7, 3, 4, 4), torch.randn(7, 5)
    for inputs, dims in ((images, (0, 2, 3)), (features, (0,))):
        moments = Moments(per_channel=True)
        for part in inputs.split(3):
            moments.add(part)
        mean, std = moments.compute()
        assert torch.allclose(mean, inputs.double().mean(dims))
        assert torch.allclose(std, inputs.double().std(dims, correction=0))
    moments = Moments(per_channel=False)
    moments.add(images)
    assert moments.compute()[0] == pytest.approx([float(images.mean())], abs=1e-6)


@pytest.mark.parametrize(
    ("scale", "shift", "verdict"),
    [
        (1.0, 0.0, "ok"),
        (255.0, 0.0, "warning"),
        (0.01, 0.0, "warning"),
        (1.0, 5.0, "warning"),
        (math.nan, 0, "warning"),
    ],
)
def test_inputs_far_from_normalised_are_warned_of(scale, shift, verdict):
    moments = Moments(per_channel=True)
    moments.add(torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) * scale + shift)
    finding = normalisation("student", moments, "do this")
    assert (finding.verdict, finding.advice) == ((verdict, "do this") if verdict == "warning" else ("ok", ""))


@pytest.mark.parametrize(
    ("accuracy", "counts", "task", "verdict"),
    [
        (0.5, [10] * 10, "multiclass", "ok"),
        (0.12, [10] * 10, "multiclass", "warning"),
        (0.9, [90, 10], "multiclass", "warning"),  # as good as always saying the first class
        (0.92, [90, 10], "multiclass", "ok"),
        (0.9, [10, 10], "multilabel", "warning"),  # 10 of 100 have each label: saying no is right in 0.9
    ],
)
def test_a_teacher_is_held_against_chance_and_the_most_frequent_class(accuracy, counts, task, verdict):
    assert teacher_accuracy(accuracy, torch.tensor(counts), 100, task).verdict == verdict


@pytest.mark.parametrize(
    ("counts", "auc", "verdict"),
    [([98, 2], 0.95, "ok"), ([98, 2], 0.52, "warning"), ([98, 1, 1], 0.95, "warning")],
)
def test_a_teacher_that_ranks_a_rare_class_well_has_something_to_teach(counts, auc, verdict):
    assert teacher_accuracy(0.981, torch.tensor(counts), 100, "multiclass", auc).verdict == verdict


class Noisy(nn.Linear):
    def forward(self, inputs):
        return nn.functional.dropout(super().forward(inputs), 0.5)  # whatever the mode


def test_a_teacher_that_is_frozen_and_steady_is_well():
    teacher, inputs = Teacher([nn.Linear(4, 3)]), torch.randn(8, 4)
    assert [f.verdict for f in frozen_and_steady(teacher, teacher(inputs).logits, inputs)] == ["ok", "ok"]


def test_a_teacher_that_is_not_is_an_error_that_says_what_it_is():
    inputs = torch.randn(8, 4)
    noisy = Teacher([Noisy(4, 3)])
    assert "two passes over a batch differ" in frozen_and_steady(noisy, noisy(inputs).logits, inputs)[1].found
    moved = Teacher([nn.Linear(4, 3)])
    before = moved(inputs).logits
    moved.networks[0].bias.data += 0.1
    assert "changed" in frozen_and_steady(moved, before, inputs)[1].found
    awake = Teacher([nn.Linear(4, 3)])
    awake.networks[0].train()
    awake.networks[0].bias.requires_grad_(True)
    finding = frozen_and_steady(awake, awake(inputs).logits, inputs)[0]
    assert finding.verdict == "error"
    assert "1 modules in training mode, 1 parameters that take a gradient" in finding.found


def test_the_share_of_the_first_choice_is_that_of_the_softened_probabilities():
    logits = torch.tensor([[0.0, math.log(3.0) * 2]])
    assert "0.750 of the probability on the first choice at T=2" in softness(logits, 2.0, "multiclass").found
    assert "0.750" in softness(torch.tensor([[-2 * math.log(3.0)]]), 2.0, "binary").found
    assert "higher temperature" in softness(10 * logits, 1.0, "multiclass").advice
    assert "lower temperature" in softness(logits, 100.0, "multiclass").advice


def well(**changed) -> Measured:
    return Measured(**({"weight": 0.5, "values": [1.0, 3.0], "norms": [0.5, 0.7]} | changed))


def test_terms_that_are_well_are_shown_with_their_means():
    findings = term_findings({"hard": well(), "soft": well(cosines=[0.1, 0.3])}, degenerate=False)
    assert [finding.verdict for finding in findings] == ["ok"] * 3
    assert findings[0].found == "value 2, weight 0.5, gradient norm 0.6"
    assert findings[1].found == "value 2, weight 0.5, gradient norm 0.6, cosine +0.20 to hard"


@pytest.mark.parametrize(
    ("changed", "degenerate", "verdict"),
    [
        ({"norms": [0.0, 0.0]}, False, "error"),
        ({"norms": [0.0, 0.0]}, True, "warning"),
        ({"norms": [0.0, 0.1]}, False, "ok"),
        ({"norms": [0.1, math.inf]}, False, "error"),
        ({"values": [1.0, math.nan]}, False, "error"),
        ({"weight": 0.0, "norms": []}, False, "ok"),
        ({"weight": 0.0, "norms": [], "values": [math.nan]}, False, "error"),
    ],
)
def test_a_term_is_judged_by_its_values_and_gradients(changed, degenerate, verdict):
    findings = {f.check: f for f in term_findings({"hard": well(), "soft": well(**changed)}, degenerate=degenerate)}
    assert findings["soft term"].verdict == verdict
    assert findings["hard term"].verdict == "ok"


def test_the_reference_is_the_first_term_that_has_a_weight():
    terms = {"hard": well(weight=0.0, norms=[]), "soft": well(), "at": well(cosines=[1.0])}
    assert term_findings(terms, degenerate=False)[2].found.endswith("cosine +1.00 to soft")


@pytest.mark.parametrize(("weak", "verdict"), [(0.007, "ok"), (0.005, "note")])
def test_terms_out_of_balance_by_a_hundred_are_noted(weak, verdict):
    terms = {"hard": well(), "soft": well(norms=[weak])}
    balance = term_findings(terms, degenerate=False)[-1]
    assert balance.verdict == verdict
    assert f"hard pulls {0.6 / weak:.3g} times as hard as soft" in balance.found


@pytest.mark.parametrize(
    ("alpha", "published", "kind", "verdict"),
    [
        (0.1, None, "constant", "ok"),
        (0.69, None, "constant", "ok"),
        (0.7, None, "constant", "note"),
        (0.9, 0.9, "constant", "ok"),  # the method's own
        (0.9, 0.5, "constant", "note"),
        (1.0, None, "constant", "ok"),
        (0.9, None, "linear", "ok"),
    ],
)
def test_a_large_alpha_is_asked_about(alpha, published, kind, verdict):
    loss = {} if published is None else {"published": {"alpha": published}}
    config = SimpleNamespace(alpha=alpha, alpha_schedule=SimpleNamespace(kind=kind, final=0.1), loss=loss)
    assert alpha_convention(config).verdict == verdict


def on_logits(loss):
    return lambda student, teacher, batch: loss(student.logits, teacher.logits, batch.target)


class Rate(nn.Module):
    """Keeps a state: each call has another value."""

    calls = 0

    def forward(self, student, teacher, batch):
        Rate.calls += 1
        return student.logits.square().mean() * self.calls


def similarity(student, teacher, batch):
    def gram(x):
        return x @ x.T

    return (gram(student.features["f"]) - gram(teacher.features["f"])).square().mean()


def distance(student, teacher, batch):
    return (student.features["f"] - teacher.features["f"]).square().mean()


@pytest.mark.parametrize(
    ("loss", "compares"),
    [
        (on_logits(KD(4.0)), False),
        (on_logits(DIST(4.0)), True),
        (similarity, True),
        (distance, False),
        (Rate(), None),
    ],
    ids=["kd", "dist", "similarity", "distance", "state"],
)
def test_a_loss_that_compares_samples_is_known_by_what_it_does(loss, compares):
    torch.manual_seed(0)
    student, teacher = (Outputs(torch.randn(16, 5), {"f": torch.randn(16, 6)}) for _ in range(2))
    batch = Batch(torch.zeros(16, 1), torch.randint(5, (16,)), torch.arange(16))
    assert compares_samples(loss, student, teacher, batch) is compares


def trainer(devices, **changed) -> SimpleNamespace:
    settings = {"accelerator": "cpu", "num_nodes": 1, "strategy": "ddp", "sync_batchnorm": False}
    return SimpleNamespace(**(settings | {"devices": devices} | changed))


@pytest.mark.parametrize(
    ("devices", "drop_last", "verdicts"),
    [
        (1, True, ["ok"]),
        (2, True, ["note", "note"]),
        (3, True, ["error"]),
        (3, False, ["note", "note"]),
        ([0, 1], True, ["note", "note"]),
    ],
)
def test_a_batch_must_be_shared_out_evenly_among_the_ranks(devices, drop_last, verdicts):
    config = SimpleNamespace(dataset=SimpleNamespace(batch_size=64, drop_last=drop_last), trainer=trainer(devices))
    assert [f.verdict for f in batches_and_ranks(config, nn.BatchNorm1d(3))] == verdicts
    assert len(batches_and_ranks(config, nn.LayerNorm(3))) == 1
    config.trainer.sync_batchnorm = True
    assert len(batches_and_ranks(config, nn.BatchNorm1d(3))) == 1


def test_unused_parameters_are_an_error_under_several_ranks_alone():
    names = ["a", "b", "c", "d"]
    assert unused_parameters([], trainer(2)) == Finding("parameters without a gradient", "none")
    assert unused_parameters(names, trainer(1)).verdict == "note"
    assert unused_parameters(names, trainer(2)).verdict == "error"
    assert unused_parameters(names, trainer(2, strategy="ddp_find_unused_parameters_true")).verdict == "note"
    assert unused_parameters(names, trainer(2), in_stages=True).verdict == "note"
    assert unused_parameters(names, trainer(2, strategy="auto"), in_stages=True).verdict == "error"
    assert unused_parameters(names, trainer(1)).found == "4: a, b, c, ..."


def test_what_is_warned_of_is_heard_once_and_not_printed(recwarn):
    heard = []
    for _ in range(2):
        with diagnosis._hearing(heard):
            warnings.warn("loss=mine: half of it is void", stacklevel=1)
    assert heard == ["loss=mine: half of it is void"]
    assert not recwarn.list


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.5, "0.5 s"), (90, "90 s"), (600, "10 min"), (3 * 3600, "3 h"), (4 * 86400, "4 days")]
)
def test_durations_are_in_words(seconds, words):
    assert diagnosis._duration(seconds) == words
