"""What holds for every task, on given outputs."""

import pytest
import torch
from torch import nn

from kdexp.contracts import ABSENT, UNLABELED, VOID, Batch, Outputs
from kdexp.losses.kd import KD
from kdexp.losses.mlkd import MLKD
from kdexp.losses.vae import VAEDistillation
from kdexp.tasks.classification import Classification
from kdexp.tasks.generation import Generation
from kdexp.tasks.segmentation import COMPARED_ROWS, Segmentation
from kdexp.tasks.text import Text

N = 6


def labels(shape: tuple[int, ...], classes: int) -> torch.Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(1))


TASKS = {
    "classification": (Classification(4), (N, 4), labels((N,), 4)),
    "classification, binary": (Classification(1, "binary"), (N, 1), labels((N,), 2)),
    "classification, multilabel": (Classification(3, "multilabel"), (N, 3), labels((N, 3), 2).float()),
    "text": (Text(4), (N, 4), labels((N,), 4)),
    "text, binary": (Text(1, "binary"), (N, 1), labels((N,), 2)),
    "segmentation": (Segmentation(4), (N, 4, 5, 7), labels((N, 5, 7), 4)),
    "segmentation, binary": (Segmentation(1, "binary"), (N, 1, 5, 7), labels((N, 5, 7), 2)),
}
LABELLED = pytest.mark.parametrize("name", list(TASKS))
LATENT, PIXELS = 2, 6
IMAGES = torch.rand(N, 1, 2, 3, generator=torch.Generator().manual_seed(1))
TASKS |= {"generation": (Generation(4, latent=LATENT), (N, PIXELS + 3 * LATENT), IMAGES)}
EVERY = pytest.mark.parametrize("name", TASKS)
MASKS = [name for name in TASKS if name.startswith("segmentation")]


class Decoder(nn.Module):
    """Of student and teacher, for a task that runs a part of the student once more."""

    def decode(self, z):
        return z @ torch.linspace(-2, 3, LATENT * PIXELS).view(LATENT, PIXELS)


def given(name, seed=0):
    task, shape, target = TASKS[name]
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator) for _ in range(2))
    if name == "generation":
        student, teacher = (torch.cat((Decoder().decode(x[:, -LATENT:]), x[:, PIXELS:]), 1) for x in (student, teacher))
        return task, VAEDistillation(LATENT), student.requires_grad_(), teacher, target
    return task, KD(2.0, kind=task.kind), student.requires_grad_(), teacher, target


def terms(task, loss, student, teacher, target):
    batch = Batch(torch.zeros(len(student), 1), target)
    of_student = Outputs(student, network=Decoder())
    return task.hard(of_student, batch), task.soft(loss, of_student, Outputs(teacher), batch)


@EVERY
def test_both_terms_are_scalars_with_a_gradient(name):
    task, loss, student, teacher, target = given(name)
    for term in terms(task, loss, student, teacher, target):
        assert term.shape == ()
        (gradient,) = torch.autograd.grad(term, student, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


@EVERY
def test_a_teacher_that_is_the_student_gives_no_soft_term(name):
    task, loss, student, _, target = given(name)
    _, soft = terms(task, loss, student, student.detach(), target)
    assert float(soft.detach()) == pytest.approx(0, abs=1e-6)


@EVERY
def test_the_terms_of_a_batch_are_the_mean_of_those_of_its_halves(name):
    task, loss, student, teacher, target = given(name)
    whole = terms(task, loss, student, teacher, target)
    halves = [terms(task, loss, *(each[part] for each in (student, teacher, target)))
              for part in (slice(N // 2), slice(N // 2, N))]  # fmt: skip
    for term, first, second in zip(whole, *halves, strict=True):
        torch.testing.assert_close(term, (first + second) / 2)


def uneven(name, target):
    """A target of which one half counts less than the other."""
    target = target.clone()
    if name in MASKS:
        target[1, 1:] = UNLABELED
        target[N // 2 :, :, 2:] = ABSENT
    else:
        target[: N // 2 - 1] = UNLABELED
    return target


@LABELLED
def test_batches_of_one_step_have_together_the_terms_of_the_whole(name):
    task, loss, student, teacher, target = given(name)
    target = uneven(name, target)
    whole = terms(task, loss, student, teacher, target)
    parts = [slice(N // 2), slice(N // 2, N)]
    step = [target[part] for part in parts]
    found = []
    for part in parts:
        batch = Batch(torch.zeros(N // 2, 1), target[part], step=step)
        of_student, of_teacher = Outputs(student[part]), Outputs(teacher[part])
        found.append((task.hard(of_student, batch), task.soft(loss, of_student, of_teacher, batch)))
    for term, *halves in zip(whole, *found, strict=True):
        torch.testing.assert_close(term, torch.stack(halves).mean())
    assert not torch.allclose(whole[0], sum(terms(task, loss, student[p], teacher[p], target[p])[0] for p in parts) / 2)


@EVERY
def test_the_soft_term_does_not_see_the_labels(name):
    task, loss, student, teacher, target = given(name)
    _, soft = terms(task, loss, student, teacher, target)
    _, blind = terms(task, loss, student, teacher, torch.full_like(target, UNLABELED))
    assert torch.equal(soft, blind)


@LABELLED
def test_without_a_label_the_hard_term_is_0_with_a_gradient_of_0(name):
    task, loss, student, teacher, target = given(name)
    hard, _ = terms(task, loss, student, teacher, torch.full_like(target, UNLABELED))
    (gradient,) = torch.autograd.grad(hard, student)
    assert float(hard.detach()) == 0
    assert not gradient.any()


@LABELLED
def test_metrics_of_a_perfect_student_are_perfect(name):
    task, _, _, _, target = given(name)
    sign = task.kind == "multiclass"
    truth = (
        torch.nn.functional.one_hot(target, task.num_outputs).movedim(-1, 1)
        if sign
        else target.view(given(name)[2].shape)
    )
    metrics = task.metrics(fidelity=True)
    metrics.update(20.0 * truth - 10, target, teacher_logits=20.0 * truth - 10)
    found = metrics.compute()
    assert found["acc"] == found["agreement"] == 1
    assert found.get("miou", 1) == 1


@LABELLED
def test_the_measure_of_the_mean_of_all_records_is_the_metric(name):
    task, _, student, _, target = given(name)
    metrics = task.metrics()
    metrics.update(student, target)
    records = torch.cat([task.records(student[part], target[part]) for part in torch.arange(N).split(4)])
    assert float(task.measure_of(records.double().mean(0))) == pytest.approx(metrics.compute()[task.measure])


@pytest.mark.parametrize("name", MASKS)
def test_a_sample_that_does_not_exist_changes_nothing(name):
    task, loss, student, teacher, target = given(name)
    more = [torch.cat([each, torch.full_like(each[:1], value)]) for each, value in
            ((student, float("nan")), (teacher, float("nan")), (target, ABSENT))]  # fmt: skip
    for term, again in zip(terms(task, loss, student, teacher, target), terms(task, loss, *more), strict=True):
        assert torch.equal(term, again)
        (gradient,) = torch.autograd.grad(again, student, retain_graph=True)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", MASKS)
def test_where_the_label_is_withheld_the_teacher_is_followed_if_that_is_asked_for(name):
    task, loss, student, teacher, target = given(name)
    void = target.clone()
    void[:, 0] = VOID
    rest = [each[..., 1:, :] for each in (student, teacher, target)]
    for term, own in zip(terms(task, loss, student, teacher, void), terms(task, loss, *rest), strict=True):
        torch.testing.assert_close(term, own)
    followed = type(task)(task.num_outputs, task.kind, distill_void=True)
    torch.testing.assert_close(
        terms(followed, loss, student, teacher, void)[1], terms(task, loss, student, teacher, target)[1]
    )


def test_a_loss_that_compares_pixels_gets_some_of_them():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 90, 90, generator=generator) for _ in range(2))
    target = torch.zeros(2, 90, 90, dtype=torch.int64)
    loss, batch = MLKD(), Batch(torch.zeros(2, 1), target)
    kept = torch.arange(COMPARED_ROWS) * (2 * 90 * 90 - 1) // (COMPARED_ROWS - 1)
    rows = [each.movedim(1, -1).reshape(-1, 3)[kept] for each in (student, teacher)]
    found = Segmentation(3).soft(loss, Outputs(student), Outputs(teacher), batch)
    torch.testing.assert_close(found, loss(*rows, target.flatten()[kept]))


def test_cross_entropy_and_dice_by_hand():
    logits = torch.tensor([[[[2.0, -1.0], [0.5, 3.0]]]])
    target = torch.tensor([[[1, 0], [UNLABELED, 1]]])
    p = logits[0, 0].sigmoid()
    entropy = -(p[0, 0].log() + (1 - p[0, 1]).log() + p[1, 1].log()) / 3
    overlap, predicted = p[0, 0] + p[1, 1], p[0, 0] + p[0, 1] + p[1, 1]
    dice = 1 - (2 * overlap + 1) / (predicted + 2 + 1)
    batch = Batch(logits, target)
    torch.testing.assert_close(
        Segmentation(1, "binary", dice_weight=0.5).hard(Outputs(logits), batch), entropy + dice / 2
    )
