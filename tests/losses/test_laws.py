"""What every soft loss in conf/loss must obey; a new yaml is tested without an edit here."""

import copy
import re
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch

from kdexp.config.compose import compose
from kdexp.experiment.losses import build_term

CONF = Path(__file__).parents[2] / "conf" / "loss"
LOSSES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "vae")  # which compares no rows of logits

# All others are 0, their minimum, where the student's logits are the teacher's.
MINIMUM_ELSEWHERE = {
    "deit_hard": "wants certainty",
    "nkd": "wants more of the true class",
    "nkd_cifar": "wants more of the true class",
    "ttm": "wants the teacher's logits divided by T",
    "wttm": "wants the teacher's logits divided by T",
    "label_smoothing": "has no teacher",
    "tf_kd": "has no teacher",
    "matched_smoothing": "wants smoothed labels",
    "permuted_kd": "wants the others' probabilities exchanged",
}
# Draws an order of the classes for each sample; seeded before each call, it is a function of its arguments again.
RANDOM = {"permuted_kd"}
WITHOUT_TEACHER = {"label_smoothing", "tf_kd"}
# All others see a softmax, which does not change when all of a sample's logits move together.
SEE_A_SHIFT = {"mse", "bce_kd"}


@cache
def config(name, kind="multiclass"):
    classes = "2" if kind == "binary" else "7"
    overrides = [f"loss={name}", "dataset=synthetic", f"dataset.kind={kind}", f"dataset.num_classes={classes}"]
    return compose(overrides, output_dir="unused").loss


@pytest.fixture(params=LOSSES)
def name(request):
    return request.param


@pytest.fixture
def loss(name):
    made = build_term(config(name)).loss
    if name in RANDOM:
        made.register_forward_pre_hook(lambda module, arguments: torch.manual_seed(0) and None)
    return made


def refuses_two_classes(name):
    return name.endswith("_ls") or name in RANDOM


def make(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, *shape, generator=generator).unbind()
    target = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    return student.requires_grad_(), teacher.requires_grad_(), target


@pytest.fixture
def batch():
    return make(12, 7)


def test_is_a_finite_scalar(loss, batch):
    value = loss(*batch)
    assert value.shape == ()
    assert value.isfinite()


def test_gradient_reaches_the_student_and_not_the_teacher(loss, batch):
    student, teacher, _ = batch
    loss(*batch).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_gradient_reaches_the_losss_own_parameters(loss, batch):
    loss(*batch).backward()
    assert all(parameter.grad.abs() > 0 for parameter in loss.parameters())


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_logits_give_finite_values_and_gradients(loss, batch, scale):
    _, teacher, target = batch
    student = (teacher.detach().flip(0).sign() * scale).requires_grad_()
    value = loss(student, teacher.detach().sign() * scale, target)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("at", ["equal", "constant"])
def test_logits_that_are_equal_or_constant_give_finite_gradients(loss, batch, at):
    _, teacher, target = batch
    teacher = teacher.detach() if at == "equal" else torch.zeros(12, 7)
    student = teacher.clone().requires_grad_()
    loss(student, teacher, target).backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32(loss, batch, dtype):
    student, teacher, target = batch
    with torch.autocast("cpu", dtype):
        value = loss(student.to(dtype), teacher.to(dtype), target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(student.to(dtype).float(), teacher.to(dtype).float(), target))


def test_order_of_the_batch_does_not_matter(name, loss, batch):
    if name in RANDOM:
        pytest.skip("draws for each place in the batch")
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss(*(part[order] for part in batch)), loss(*batch))


def test_a_small_step_down_the_gradient_lowers_it(loss, batch):
    student, teacher, target = batch
    before = loss(*batch)
    before.backward()
    step = student.detach() - 1e-2 * student.grad / student.grad.norm()
    assert loss(step, teacher, target) < before


def test_a_loss_without_a_teacher_says_so(name, loss):
    assert getattr(loss, "needs_teacher", True) == (name not in WITHOUT_TEACHER)


def test_is_lower_for_the_teachers_own_logits_than_for_others_if_there_is_a_teacher(name, loss, batch):
    student, teacher, target = batch
    if name in WITHOUT_TEACHER:
        assert torch.equal(loss(student, teacher, target), loss(student, -teacher, target))
    else:
        assert loss(teacher.detach(), teacher, target) < loss(*batch)


def test_is_zero_without_a_gradient_where_the_student_is_the_teacher_or_says_where_else(name, loss, batch):
    _, teacher, target = batch
    student = teacher.detach().clone().requires_grad_()
    value = loss(student, teacher, target)
    value.backward()
    zero = abs(value.item()) < 1e-5 and student.grad.abs().max() < 1e-5
    assert zero == (name not in MINIMUM_ELSEWHERE)


def test_moving_all_logits_of_a_sample_changes_nothing_unless_it_looks_at_them_one_by_one(name, loss, batch):
    student, teacher, target = batch
    moved = loss(student + torch.arange(12)[:, None], teacher - 3, target)
    assert torch.allclose(moved, loss(*batch), rtol=1e-3) == (name not in SEE_A_SHIFT)


def test_dense_logits_give_the_mean_over_positions(name, loss):
    if name in RANDOM:
        pytest.skip("draws for each position")
    student, teacher, target = make(5, 7, 3, 2)
    one_by_one = [loss(student[..., h, w], teacher[..., h, w], target[..., h, w]) for h in range(3) for w in range(2)]
    torch.testing.assert_close(loss(student, teacher, target), torch.stack(one_by_one).mean())


def test_a_batch_of_one_has_a_gradient(loss):
    student, teacher, target = make(1, 7)
    loss(student, teacher, target).backward()
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0


def works_with_two_outcomes(loss, student, teacher, target):
    """Whether it does; if not, it has to say so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"loss=\w+: the .* term has no gradient with 2 classes")
        try:
            value = loss(student, teacher, target)
        except ValueError as error:
            refusal = str(error)
        else:
            refusal = ""
    if refusal:
        assert re.search("needs at least 3 classes, got 2$", refusal)
        return False
    value.backward()
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0
    return True


def test_two_classes_work_or_are_refused(name, loss):
    assert works_with_two_outcomes(loss, *make(12, 2)) == (not refuses_two_classes(name))


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_sigmoid_tasks_work_or_are_refused(name, kind):
    if refuses_two_classes(name):
        with pytest.raises(ValueError, match=f"needs dataset.kind to be multiclass, got {kind}"):
            build_term(config(name, kind))
        return
    student, teacher, _ = make(12, 1 if kind == "binary" else 7)
    target = torch.randint(0, 2, (12,) if kind == "binary" else (12, 7), generator=torch.Generator().manual_seed(2))
    assert works_with_two_outcomes(
        build_term(config(name, kind)).loss, student, teacher, target if kind == "binary" else target.float()
    )


def test_one_logit_is_two_classes_of_which_the_first_has_logit_zero(name):
    if refuses_two_classes(name) or name in SEE_A_SHIFT:
        pytest.skip("not a softmax over two classes")
    student, teacher, _ = make(12, 1)
    target = torch.randint(0, 2, (12,), generator=torch.Generator().manual_seed(2))
    two = [torch.cat((torch.zeros(12, 1), x.detach()), 1) for x in (student, teacher)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"loss=\w+: the .* term has no gradient with 2 classes")
        one_logit = build_term(config(name, "binary")).loss(student, teacher, target)
        torch.testing.assert_close(one_logit, build_term(config(name)).loss(*two, target))


def test_a_hidden_label_changes_nothing_or_leaves_its_sample_out(name, loss, batch):
    if name in RANDOM:
        pytest.skip("takes the teacher's word for the label")
    student, teacher, target = batch
    hidden = target.clone()
    hidden[::3] = -1
    labelled = hidden >= 0
    value, ignoring = loss(student, teacher, hidden), loss(*batch)
    without = loss(student[labelled], teacher[labelled], target[labelled])
    assert torch.allclose(value, ignoring) or torch.allclose(value, without)


def test_without_any_label_it_is_finite_with_a_finite_gradient(loss, batch):
    student, teacher, target = batch
    value = loss(student, teacher, torch.full_like(target, -1))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_a_mixed_target_of_one_class_is_that_class(loss, batch):
    student, teacher, target = batch
    mixed = torch.nn.functional.one_hot(target, 7).float()
    torch.testing.assert_close(loss(student, teacher, mixed), loss(*batch))
    mixed[::3] = 0  # both partners unlabelled
    hidden = target.clone()
    hidden[::3] = -1
    torch.testing.assert_close(loss(student, teacher, mixed), loss(student, teacher, hidden))


def test_logits_of_another_shape_are_refused_where_there_is_a_teacher(name, loss, batch):
    if name in WITHOUT_TEACHER:
        pytest.skip("the teacher's logits are not looked at")
    student, teacher, target = batch
    with pytest.raises(ValueError, match=r"^teacher_logits must .* N = 12, C = 7 of student_logits, got \(12, 6\)$"):
        loss(student, teacher[:, :6], target)


def test_a_schedule_may_set_the_temperature_and_it_matters_if_the_yaml_has_one(name, loss, batch):
    before = loss(*batch)
    loss.temperature = 1.5
    settings = {**config(name), **config(name).get("loss", {})}
    assert (loss(*batch) != before) == ("temperature" in settings)


def test_epochs_and_saving_do_not_disturb_it(loss, batch):
    if hasattr(loss, "on_epoch"):
        for epoch in range(25):
            loss.on_epoch(epoch)
    fresh = copy.deepcopy(loss)
    fresh.load_state_dict(loss.state_dict())
    assert torch.equal(fresh(*batch), loss(*batch))
