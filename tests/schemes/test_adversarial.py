"""Each loss against its formula written out, with the adversarial examples made by hand."""

import csv

import pytest
import torch
from small_training import FEATURES, TASK, batches, network, sgd, train
from torch.nn import functional as F

from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity
from kdexp.contracts import UNLABELED, Batch
from kdexp.experiment.check import check
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.run import run
from kdexp.losses.kd import KD
from kdexp.losses.rslad import rslad as rslad_loss
from kdexp.robustness.attacks import Attack, Normalized, untargeted_loss
from kdexp.schemes.adaad import AdaADDistiller
from kdexp.schemes.ard import ARDDistiller
from kdexp.schemes.iad import IADDistiller
from kdexp.schemes.pgd_at import PGDDistiller
from kdexp.schemes.rslad import RSLADDistiller
from kdexp.schemes.trades import TRADESDistiller
from kdexp.teacher.teacher import Teacher
from kdexp.weights import load_weights

MEAN, STD, EPS = [0.2], [0.5], 0.3
# Two steps, from the clean input, without bounds: what can be written out.
ATTACK = Attack("linf", EPS, 2, 0.2, random_start=False, bounds=None)


def made(kind, student=None, attack=ATTACK, alpha=0.0, teacher=True, temperature=1.0, **settings):
    frozen = {"teacher": Teacher([network(9)]), "soft_loss": KD(temperature), "temperature": temperature}
    if not teacher:
        frozen = {}
    return kind(
        student or network(), sgd, task=TASK, alpha=alpha, attack=attack, mean=MEAN, std=STD, seed=4,
        **frozen, **settings,
    )  # fmt: skip


def kl(p, q):
    return F.kl_div(q.log_softmax(1), p.softmax(1), reduction="none").sum(1)


def by_hand(student, inputs, objective):
    """Two steps of sign ascent of 0.2 within 0.3, in units of pixels: of 0.4 within 0.6 in the normalised ones."""
    student.eval()
    moved = inputs
    for _ in range(2):
        moved = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(moved), moved)
        moved = inputs + (moved + 0.4 * gradient.sign() - inputs).clamp(-0.6, 0.6)
    student.train()
    return moved.detach()


BATCH = batches()[0]
TEACHER = network(9).eval().requires_grad_(False)


def terms(module):
    module.train()
    return module.training_terms(BATCH)[1]


def wrong(student):
    return lambda x: F.cross_entropy(student(x), BATCH.target, reduction="sum")


def test_pgd_training_learns_from_the_attacked_inputs_alone():
    student, copy = network(), network()
    found = terms(made(PGDDistiller, student, teacher=False))
    moved = by_hand(copy, BATCH.inputs, wrong(copy))
    assert set(found) == {"hard"}
    assert found["hard"][0] == 1
    torch.testing.assert_close(found["hard"][1], F.cross_entropy(copy(moved), BATCH.target))
    assert not torch.allclose(moved, BATCH.inputs)


def test_trades_adds_what_an_attack_changes():
    student, copy = network(), network()
    attack = Attack("linf", EPS, 2, 0.2, bounds=None)  # at the clean input the divergence has no gradient
    found = terms(made(TRADESDistiller, student, attack, teacher=False, beta=6.0))
    fixed = copy.eval()(BATCH.inputs).detach()
    attacker = made(TRADESDistiller, copy, attack, teacher=False, beta=6.0)
    moved = attacker.attacked(lambda x: kl(fixed, copy(x)).sum(), BATCH)
    copy.train()
    clean = copy(BATCH.inputs)
    torch.testing.assert_close(found["hard"], (1.0, F.cross_entropy(clean, BATCH.target)))
    torch.testing.assert_close(found["robust"], (6.0, kl(clean, copy(moved)).mean()))
    found["robust"][1].backward()
    kl(clean, copy(moved)).mean().backward()
    for mine, theirs in zip(student.parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-6, rtol=1e-4)


def test_ard_compares_the_attacked_student_with_the_teacher_of_the_clean_input():
    copy = network()
    found = terms(made(ARDDistiller, alpha=0.25, temperature=3.0))
    moved = by_hand(copy, BATCH.inputs, wrong(copy))
    clean, attacked, teacher = copy(BATCH.inputs), copy(moved), TEACHER(BATCH.inputs)
    torch.testing.assert_close(found["hard"], (0.25, F.cross_entropy(clean, BATCH.target)))
    torch.testing.assert_close(found["soft"], (0.75, 9 * kl(teacher / 3, attacked / 3).mean()))


def test_rslad_attacks_the_soft_labels_and_weighs_both_inputs():
    copy = network()
    found = terms(made(RSLADDistiller, adversarial_weight=5 / 6))
    teacher = TEACHER(BATCH.inputs)
    moved = by_hand(copy, BATCH.inputs, lambda x: kl(teacher, copy(x)).sum())
    clean, attacked = copy(BATCH.inputs), copy(moved)
    expected = 5 / 6 * kl(teacher, attacked).mean() + 1 / 6 * kl(teacher, clean).mean()
    torch.testing.assert_close(found["soft"], (1.0, expected))
    torch.testing.assert_close(found["soft"][1], rslad_loss(attacked, clean, teacher))
    assert found["hard"][0] == 0


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_adaad_asks_the_teacher_about_what_the_student_sees(weight):
    copy = network()
    found = terms(made(AdaADDistiller, adversarial_weight=weight))
    moved = by_hand(copy, BATCH.inputs, lambda x: kl(TEACHER(x), copy(x)).sum())
    clean, attacked = copy(BATCH.inputs), copy(moved)
    expected = weight * kl(TEACHER(moved), attacked).mean() + (1 - weight) * kl(TEACHER(BATCH.inputs), clean).mean()
    torch.testing.assert_close(found["soft"], (1.0, expected))
    only_student = by_hand(copy, BATCH.inputs, lambda x: kl(TEACHER(BATCH.inputs), copy(x)).sum())
    assert not torch.allclose(moved, only_student), "the teacher's gradient counts"


def test_iad_trusts_the_teacher_as_far_as_it_knows_the_truth():
    student, copy = network(), network()
    module = made(IADDistiller, student, temperature=2.0, beta=0.1, begin=0.5)
    module.set_weights(epoch=5, epochs=10)
    found = terms(module)
    moved = by_hand(copy, BATCH.inputs, wrong(copy))
    clean, attacked, teacher = copy(BATCH.inputs), copy(moved), TEACHER(BATCH.inputs)
    trust = TEACHER(moved).softmax(1)[torch.arange(8), BATCH.target] ** 0.1
    distilled = 4 * kl(teacher / 2, attacked / 2).mean()
    torch.testing.assert_close(found["soft"], (1.0, distilled + ((1 - trust) * kl(clean, attacked)).mean()))
    early = made(IADDistiller, network(), temperature=2.0, beta=0.1, begin=0.5)
    early.set_weights(epoch=4, epochs=10)
    torch.testing.assert_close(terms(early)["soft"], (1.0, distilled))


KINDS = [
    (PGDDistiller, {"teacher": False}),
    (TRADESDistiller, {"teacher": False, "beta": 6.0}),
    (ARDDistiller, {}),
    (RSLADDistiller, {"adversarial_weight": 5 / 6}),
    (IADDistiller, {"beta": 0.1, "begin": 0.0}),
    (AdaADDistiller, {"adversarial_weight": 1.0}),
]


@pytest.mark.parametrize(("kind", "settings"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attack_raises_its_objective_within_eps_and_in_the_range_of_pixels(kind, settings, norm):
    images = torch.rand(16, 1, 4, 4)
    images[:, :, 0] = 0
    torch.manual_seed(0)
    student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    eps = 0.05 if norm == "linf" else 0.2
    module = made(kind, student, Attack(norm, eps, 10, eps / 4), **settings)
    module.teacher = Teacher([teacher])
    seen = []
    plain = module.attacked

    def watched(objective, batch):
        moved = plain(objective, batch)
        student.eval()
        seen.append((batch.inputs, moved, float(objective(batch.inputs).detach()), float(objective(moved).detach())))
        return moved

    module.attacked = watched
    module.training_terms(Batch((images - 0.2) / 0.5, torch.arange(16) % 3, torch.arange(16)))
    ((clean, moved, before, after),) = seen
    delta = ((moved - clean) * 0.5).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert size.max() <= eps + 1e-6
    assert size.min() > 0.9 * eps if norm == "linf" else size.max() > 0.9 * eps
    pixels = moved * 0.5 + 0.2
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    assert after > before + 1e-4


@pytest.mark.parametrize(("kind", "settings"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
def test_all_of_them_train_save_the_student_alone_and_choose_by_accuracy_under_attack(kind, settings):
    student, start = network(), network()
    module = made(kind, student, Attack("linf", EPS, 3, 0.1, bounds=None), **settings)
    logged = train(module, epochs=2).callback_metrics
    assert any(not torch.equal(a, b) for a, b in zip(student.parameters(), start.parameters(), strict=True))
    assert all(name.startswith("student.") for name in module.state_dict())
    assert module.monitor == "val/robust_acc"
    assert 0 <= logged["val/robust_acc"] <= logged["val/acc"] <= 1
    assert float(logged["train/loss"]) > 0


def test_accuracy_under_attack_is_that_of_the_validation_split():
    student = network()
    module = made(PGDDistiller, student, teacher=False)
    logged = train(module, epochs=1).callback_metrics
    student.eval()
    hits = 0
    for batch in batches():
        objective = lambda x, batch=batch: F.cross_entropy(student(x), batch.target, reduction="sum")  # noqa: E731
        moved = batch.inputs
        for _ in range(2):
            moved = moved.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(objective(moved), moved)
            moved = batch.inputs + (moved + 0.4 * gradient.sign() - batch.inputs).clamp(-0.6, 0.6)
        hits += int((student(moved).argmax(1) == batch.target).sum())
    assert logged["val/robust_acc"] == pytest.approx(hits / 24)


def test_samples_without_a_label_feed_the_soft_term_alone():
    hidden = Batch(BATCH.inputs, torch.full_like(BATCH.target, UNLABELED), BATCH.index)
    for kind, settings in KINDS[2:]:
        module = made(kind, alpha=0.3, **settings)
        found = module.training_terms(hidden)[1]
        assert found["hard"][1] == 0
        assert found["soft"][1] > 0
        assert found["soft"][1].isfinite()


def test_the_attack_starts_from_numbers_of_seed_epoch_and_sample():
    attack = Attack("linf", EPS, 1, 1e-6, bounds=None)
    one, other = made(PGDDistiller, attack=attack, teacher=False), made(PGDDistiller, attack=attack, teacher=False)
    zero = lambda x: x.sum()  # noqa: E731
    whole = one.attacked(zero, BATCH)
    part = Batch(BATCH.inputs[2:5], BATCH.target[2:5], BATCH.index[2:5])
    torch.testing.assert_close(other.attacked(zero, part), whole[2:5], atol=1e-5, rtol=0)
    assert whole.shape[1] == FEATURES


# Whole runs

SMOKE = ("experiment=smoke", "tracking=none", "trainer.max_epochs=1", "teacher.recipe.max_epochs=1")
WEAK = ("scheme.attack.steps=2", "scheme.attack.eps=0.1", "scheme.attack.abs_stepsize=0.1")


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("scheme", ["pgd_at", "trades", "ard", "rslad", "iad", "adaad"])
def test_every_scheme_is_a_run(tmp_path, store, scheme):
    config = compose([*SMOKE, f"scheme={scheme}", *WEAK], output_dir=tmp_path, store_dir=store)
    result = run(config)
    assert result["status"] == "completed"
    assert not result["is_control"]
    assert ("teacher" in result) == (scheme not in ("pgd_at", "trades"))
    (row,) = rows(tmp_path)
    assert 0 <= float(row["val/robust_acc"]) <= float(row["val/acc"])
    if scheme == "rslad":
        assert (config.alpha, config.loss["_target_"]) == (0.0, "kdexp.losses.rslad.RSLAD")


def test_a_robust_scheme_and_a_plain_one_have_the_same_control(tmp_path, store):
    plainly = [plain(compose([*SMOKE, *scheme], output_dir=tmp_path, store_dir=store))
               for scheme in ([], ["scheme=ard"], ["scheme=pgd_at"], ["alpha=1"])]  # fmt: skip
    assert len({Identity(config).control_fingerprint for config in plainly}) == 1
    assert [Identity(config).is_control for config in plainly] == [False, False, False, True]
    alone = compose([*SMOKE, "scheme=trades", "alpha=1"], output_dir=tmp_path, store_dir=store)
    assert not Identity(alone).is_control, "a student that is attacked is none, even without a teacher"


def test_a_teacher_may_be_robust_and_is_another_teacher_then(tmp_path, store):
    robust = ["scheme@teacher.recipe.scheme=trades", *(f"teacher.recipe.{word}" for word in WEAK)]
    first = run(compose([*SMOKE], output_dir=tmp_path / "a", store_dir=store))
    second = run(compose([*SMOKE, *robust], output_dir=tmp_path / "b", store_dir=store))
    assert first["teacher"]["test"] != second["teacher"]["test"]
    config = compose([*SMOKE, "scheme@teacher.recipe.scheme=ard"], output_dir=tmp_path, store_dir=store)
    with pytest.raises(
        ValueError,
        match=r"^teacher.recipe.scheme must be null or a scheme without a teacher \(pgd_at, trades\), got None$",
    ):
        check(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # Exchanged, as in a published baseline.
        (["scheme=adaad", "scheme.attack.eps=0.0078", "scheme.attack.abs_stepsize=0.031"],
         r"^scheme.attack: abs_stepsize of an attack must be in \(0, eps=0.0078\], got 0.031$"),
        (["scheme=pgd_at", "scheme.attack.eps=2"], r"^scheme.attack: eps of an attack must be in \(0, 1\].*got 2$"),
        (["scheme@teacher.recipe.scheme=pgd_at", "teacher.recipe.scheme.attack.steps=0"],
         r"^teacher.recipe.scheme.attack: steps of an attack must be at least 1, got 0$"),
        (["scheme=trades", "scheme.beta=-1"], r"^scheme.beta must be >= 0, got -1"),
        (["scheme=trades", "scheme.beta=much"], r"^scheme.beta must be >= 0, got much"),
        (["scheme=ard", "scheme.attack.steps=many"], r"^scheme.attack.steps must be a number, got many$"),
        (["scheme=iad", "scheme.begin=1"], r"^scheme.begin must be in \[0, 1\), got 1"),
        (["scheme=rslad", "scheme.adversarial_weight=2"], r"^scheme.adversarial_weight must be in \[0, 1\], got 2"),
        (["scheme=ard", "feature_loss=[at]"], r"^feature_loss must be empty with scheme=ard, got at$"),
        (["scheme=ard", "teacher.cache=views:2"], r"^teacher.cache must be none with scheme=ard, got views:2$"),
        (["scheme=ard", "loss=label_smoothing"], r"^loss must be one that needs a teacher with scheme=ard, got kdexp"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_scheme_that_makes_no_sense_is_one_line_before_training(tmp_path, store, overrides, message):
    with pytest.raises(ValueError, match=message):
        run(compose([*SMOKE, *overrides], output_dir=tmp_path, store_dir=store))
    assert not (tmp_path / "checkpoints").exists()


def test_adversarial_training_withstands_what_plain_training_does_not(tmp_path, store):
    """Accuracy under PGD on digits, of the same student."""
    settings = [
        "dataset=digits",
        "student=cnn",
        "tracking=none",
        "trainer=cpu",
        "trainer.max_epochs=12",
        "optimizer.lr=0.01",
    ]
    attacked = ["scheme=pgd_at", "scheme.attack.eps=0.15", "scheme.attack.abs_stepsize=0.04", "scheme.attack.steps=7"]
    robust = {}
    for name, scheme in (("plain", ["alpha=1"]), ("robust", attacked)):
        config = compose([*settings, *scheme], output_dir=tmp_path / name, store_dir=store)
        run(config)
        data = Experiment(config).data
        student = Experiment(config).new_student(pretrained=None).eval()
        load_weights(student, tmp_path / name / "student.safetensors", "student")
        network = Normalized(student, config.dataset.mean, config.dataset.std)
        right = count = 0
        for batch in data.student.eval_batches("test", "cpu"):
            pixels = (batch.inputs * config.dataset.std[0] + config.dataset.mean[0]).clamp(0, 1)
            attack = Attack("linf", 0.15, 20, 0.04)
            moved = attack(untargeted_loss(network, batch.target, "multiclass"), pixels, batch.index, seed=0)
            right += int((network(moved).argmax(1) == batch.target).sum())
            count += len(moved)
        robust[name] = right / count
    assert robust["robust"] > robust["plain"] + 0.15, robust
