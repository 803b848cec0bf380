import pytest
import torch
from small_training import TASK, batches, network, same, sgd, train
from torch.nn import functional as F

from kdexp.losses.kd import KD
from kdexp.schemes.ema import EMADistiller
from kdexp.schemes.mutual import MutualDistiller


def test_the_average_follows_the_student_and_its_logits_are_the_soft_targets():
    student, by_hand = network(), network()
    module = EMADistiller(student, sgd, task=TASK, soft_loss=KD(2.0), alpha=0.3, temperature=2.0, decay=0.9)
    train(module, epochs=2)
    average, optimizer = network().eval(), sgd(by_hand.parameters())
    for step, batch in enumerate(batches() * 2):
        by_hand.train()
        logits = by_hand(batch.inputs)
        with torch.no_grad():
            wanted = average(batch.inputs)
        kl = F.kl_div((logits / 2).log_softmax(1), (wanted / 2).softmax(1), reduction="batchmean")
        optimizer.zero_grad()
        (0.3 * F.cross_entropy(logits, batch.target) + 0.7 * 4 * kl).backward()
        optimizer.step()
        keep = 0.0 if step == 0 else min(1 - 1 / (step + 1), 0.9)
        for own, new in zip(average.state_dict().values(), by_hand.state_dict().values(), strict=True):
            own.copy_(keep * own + (1 - keep) * new if own.is_floating_point() else new)
    for found, expected in ((student, by_hand), (module.average.module, average)):
        for a, b in zip(found.state_dict().values(), expected.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b)


def test_the_average_is_saved_in_no_optimizer_and_in_eval_mode():
    module = EMADistiller(network(), sgd, task=TASK, soft_loss=KD(2.0), temperature=2.0, decay=0.9)
    trainer = train(module)
    optimized = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert optimized == {id(p) for p in module.student.parameters()}
    assert all(name.startswith("student.") for name in module.state_dict())
    module.train()
    assert module.student.training
    assert not module.average.training
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    fresh = EMADistiller(network(1), sgd, task=TASK, soft_loss=KD(2.0), temperature=2.0, decay=0.9)
    fresh.on_load_checkpoint(checkpoint)
    assert same(fresh.average, module.average)
    assert not same(fresh.average.module, module.student)


def test_students_that_learn_together_each_have_their_own_loss():
    """Equation 8 of the paper by hand, for three networks."""
    students, by_hand = [network(seed, 6 + seed) for seed in range(3)], [network(seed, 6 + seed) for seed in range(3)]
    module = MutualDistiller(
        students[0], sgd, task=TASK, soft_loss=KD(1.0), alpha=0.4, temperature=1.0,
        peers={"a": students[1], "b": students[2]},
    )  # fmt: skip
    train(module, epochs=2)
    optimizers = [sgd(net.parameters()) for net in by_hand]
    for batch in batches() * 2:
        logits = [net.train()(batch.inputs) for net in by_hand]
        for own, optimizer in zip(logits, optimizers, strict=True):
            others = [other.detach().softmax(1) for other in logits if other is not own]
            soft = sum(F.kl_div(own.log_softmax(1), p, reduction="batchmean") for p in others) / 2
            optimizer.zero_grad()
            (0.4 * F.cross_entropy(own, batch.target) + 0.6 * soft).backward()
        for optimizer in optimizers:
            optimizer.step()
    for found, expected in zip(students, by_hand, strict=True):
        for a, b in zip(found.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_a_peers_terms_are_logged_under_its_name_and_the_validation_loss_is_the_students():
    module = MutualDistiller(
        network(),
        sgd,
        task=TASK,
        soft_loss=KD(1.0),
        alpha=0.4,
        temperature=1.0,
        peers={"a": network(1)},
    )
    logged = train(module, epochs=1).callback_metrics
    parts = ("loss_hard", "loss_soft", "loss_hard_a", "loss_soft_a")
    total = sum((0.4 if "hard" in part else 0.6) * float(logged[f"train/{part}"]) for part in parts)
    assert logged["train/loss"] == pytest.approx(total, rel=1e-5)
    module.eval()
    losses = []
    for batch in batches():
        own, other = module.student(batch.inputs), module.peers["a"](batch.inputs)
        soft = F.kl_div(own.log_softmax(1), other.softmax(1), reduction="batchmean")
        losses.append((0.4 * F.cross_entropy(own, batch.target) + 0.6 * soft).item())
    assert logged["val/loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_with_alpha_1_a_peer_changes_nothing():
    alone, together = network(), network()
    train(MutualDistiller(alone, sgd, task=TASK, soft_loss=KD(1.0), alpha=1.0, temperature=1.0,
                          peers={"a": network(1)}))  # fmt: skip
    train(MutualDistiller(together, sgd, task=TASK, soft_loss=KD(1.0), alpha=1.0, temperature=1.0,
                          peers={"a": network(2)}))  # fmt: skip
    assert same(alone, together)
