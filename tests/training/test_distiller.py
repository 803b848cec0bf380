from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from small_training import (
    BATCH,
    CLASSES,
    FEATURES,
    SAMPLES,
    TASK,
    batches,
    distiller,
    loader,
    network,
    same,
    sgd,
    train,
)
from torch import nn
from torch.nn import functional as F

from kdexp.contracts import Batch, Outputs
from kdexp.losses.kd import KD
from kdexp.metrics.classification import Metrics
from kdexp.tasks.classification import Classification
from kdexp.teacher.teacher import Teacher
from kdexp.training.distiller import Distiller
from kdexp.training.step_watch import Diverged
from kdexp.training.terms import Term


def plain_cross_entropy_training(student: nn.Module, epochs: int = 3) -> nn.Module:
    optimizer = sgd(student.parameters())
    student.train()
    for _ in range(epochs):
        for batch in batches():
            optimizer.zero_grad()
            F.cross_entropy(student(batch.inputs), batch.target).backward()
            optimizer.step()
    return student


@pytest.mark.parametrize("teacher", [None, network(9)], ids=["no teacher", "teacher of weight 0"])
def test_alpha_1_gives_bit_identical_weights_to_plain_cross_entropy_training(teacher):
    student = network()
    train(distiller(student, teacher, alpha=1.0))
    assert same(student, plain_cross_entropy_training(network()))


def test_distillation_is_the_hand_written_loop_bit_for_bit():
    student, by_hand, teacher = network(), network(), network(9).eval()
    train(distiller(student, network(9)))
    optimizer = sgd(by_hand.parameters())
    for _ in range(3):
        for batch in batches():
            logits = by_hand(batch.inputs)
            with torch.no_grad():
                wanted = (teacher(batch.inputs) / 2).log_softmax(1)
            soft = 4 * F.kl_div((logits / 2).log_softmax(1), wanted, reduction="batchmean", log_target=True)
            optimizer.zero_grad()
            (0.3 * F.cross_entropy(logits, batch.target) + 0.7 * soft).backward()
            optimizer.step()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(student.parameters(), by_hand.parameters(), strict=True))


def test_alpha_0_never_uses_a_label():
    straight, permuted, other = network(), network(), network()
    train(distiller(straight, network(9), alpha=0.0))
    train(distiller(permuted, network(9), alpha=0.0), batches(permute_labels=True))
    train(distiller(other, network(9), alpha=0.1), batches(permute_labels=True))
    assert same(straight, permuted)
    assert not same(straight, other)


def test_the_teacher_is_bit_identical_before_and_after_and_in_no_optimizer_or_state():
    teacher = network(9)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    module = distiller(network(), teacher)
    trainer = train(module)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    optimized = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert optimized == {id(p) for p in module.student.parameters()}
    assert all(name.startswith("student.") for name in module.state_dict())
    module.train()
    assert not teacher.training


def test_parameters_of_a_soft_loss_are_trained_and_saved():
    class Learned(KD):
        def __init__(self):
            super().__init__(2.0)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, student_logits, teacher_logits, target):
            return super().forward(self.scale * student_logits, teacher_logits, target)

    module = distiller(network(), network(9), soft_loss=Learned())
    train(module)
    assert module.soft_loss.scale != 1
    assert "soft_loss.scale" in module.state_dict()


class Values(pl.Callback):
    def __init__(self):
        self.rows = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.rows.append((pl_module.alpha, pl_module.temperature, pl_module.soft_loss.temperature))


def test_alpha_and_temperature_follow_their_schedules_over_the_epochs():
    values = Values()
    module = distiller(network(), network(9), alpha=lambda p: p, temperature=lambda p: 8 - 4 * p)
    train(module, epochs=3, callbacks=[values])
    assert values.rows == [(0.0, 8.0, 8.0), (0.5, 6.0, 6.0), (1.0, 4.0, 4.0)]


class Staged(nn.Module):
    """A feature loss with a stage of its own."""

    student_paths, teacher_paths = (), ()

    def __init__(self):
        super().__init__()
        self.in_init_stage = False


def test_in_its_init_stage_a_term_trains_alone_and_is_told_so():
    terms = {"staged": Term(Staged(), 2.0, init_fraction=0.5, weight_after_init=3.0), "other": Term(Staged(), 5.0)}
    module = distiller(nn.Linear(FEATURES, CLASSES), network(), feature_losses=terms)
    for epoch, initial in enumerate([True, True, False, False]):
        module.set_weights(epoch, 4)
        assert [loss.in_init_stage for loss in module.feature_losses.values()] == [initial, False]
        assert module.weights.logits == (0 if initial else 1)
        assert module.weights.features == ({"staged": 2, "other": 0} if initial else {"staged": 6, "other": 5})


def test_the_logged_parts_add_up_to_the_loss():
    accuracy = Metrics("multiclass", CLASSES, accuracy_only=True)
    module = distiller(network(), network(9), gradient_stats_every_n_steps=1, train_metrics=accuracy)
    logged = train(module, epochs=1).callback_metrics
    parts = 0.3 * logged["train/loss_hard"] + 0.7 * logged["train/loss_soft"]
    assert logged["train/loss"] == pytest.approx(float(parts), rel=1e-5)
    assert logged["train/weighted_hard"] == pytest.approx(0.3 * float(logged["train/loss_hard"]), rel=1e-5)
    assert -1 <= logged["train/grad_cosine"] <= 1
    assert {"val/acc", "val/agreement", "val/kl_to_teacher", "train/acc", "train/grad_norm_soft"} <= set(logged)


@pytest.mark.parametrize("together", [0, BATCH * CLASSES, 10**6])
def test_training_metrics_are_those_of_all_batches_however_many_are_measured_together(monkeypatch, together):
    monkeypatch.setattr("kdexp.training.epoch_means._TOGETHER", together)
    accuracy = Metrics("multiclass", CLASSES, accuracy_only=True)
    student = nn.Linear(FEATURES, CLASSES)
    logged = train(Distiller(student, partial(torch.optim.SGD, lr=0.0), task=TASK, train_metrics=accuracy),
                   epochs=1).callback_metrics  # fmt: skip
    right = sum(int((student(b.inputs).argmax(1) == b.target).sum()) for b in batches())
    assert logged["train/acc"] == pytest.approx(right / SAMPLES)


def test_gradient_statistics_are_those_of_the_two_terms():
    student, teacher, batch = network(), network(9).eval(), batches()[0]
    module = distiller(student, network(9), gradient_stats_every_n_steps=1)
    terms = module.logit_terms(Outputs(student(batch.inputs)), Outputs(teacher(batch.inputs).detach()), batch)
    stats = module.gradient_stats(terms)

    def gradient(loss):
        student.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in student.parameters()])

    student.train()
    hard = gradient(0.3 * F.cross_entropy(student(batch.inputs), batch.target))
    soft = gradient(0.7 * KD(2.0)(student(batch.inputs), teacher(batch.inputs), batch.target))
    assert stats["grad_norm_hard"] == pytest.approx(float(hard.norm()), rel=1e-4)
    assert stats["grad_norm_soft"] == pytest.approx(float(soft.norm()), rel=1e-4)
    assert stats["grad_cosine"] == pytest.approx(float(hard @ soft / hard.norm() / soft.norm()), rel=1e-4)


@pytest.mark.parametrize("statistics", [0, 1])
def test_gradient_statistics_do_not_change_the_training(statistics):
    student, reference = network(), network()
    train(distiller(student, network(9), gradient_stats_every_n_steps=statistics))
    train(distiller(reference, network(9)))
    assert same(student, reference)


def test_a_loss_that_is_not_finite_stops_at_its_step_and_names_its_part():
    class Explodes(KD):
        calls = 0

        def forward(self, student_logits, teacher_logits, target):
            Explodes.calls += 1
            return super().forward(student_logits, teacher_logits, target) * (float("nan") if self.calls == 3 else 1)

    with pytest.raises(Diverged, match=r"^the soft loss became NaN or Inf at step 2 \(epoch 0\)$"):
        train(distiller(network(), network(9), soft_loss=Explodes(2.0)))


def test_dropout_depends_on_seed_and_epoch_alone():
    def trained(seed, noise):
        torch.manual_seed(5)
        student = nn.Sequential(nn.Linear(FEATURES, 16), nn.Dropout(0.5), nn.Linear(16, CLASSES))
        torch.manual_seed(noise)
        train(distiller(student, alpha=1.0, seed=seed))
        return student

    assert same(trained(1, 11), trained(1, 12))
    assert not same(trained(1, 11), trained(2, 11))


def test_the_scheduler_steps_with_the_optimizer():
    module = Distiller(
        network(),
        sgd,
        task=TASK,
        scheduler=lambda optimizer, steps: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 1 - s / steps),
    )
    trainer = train(module, epochs=2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0)


def test_binary_and_multilabel_students_train_with_their_sigmoid_terms():
    for kind, target in (("binary", torch.tensor([0, 1] * 4)), ("multilabel", torch.rand(8, 2).round())):
        outputs = 1 if kind == "binary" else 2
        student, teacher = nn.Linear(FEATURES, outputs), nn.Linear(FEATURES, outputs)
        data = [Batch(torch.randn(8, FEATURES), target, torch.arange(8))]
        module = Distiller(
            student, partial(torch.optim.SGD, lr=0.1), task=Classification(outputs, kind),
            teacher=Teacher([teacher], kind=kind), soft_loss=KD(2.0, kind=kind), alpha=0.5, temperature=2.0,
        )  # fmt: skip
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                             enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
        trainer.fit(module, loader(data), loader(data))
        assert {"val/acc", "val/agreement"} <= set(trainer.callback_metrics)
