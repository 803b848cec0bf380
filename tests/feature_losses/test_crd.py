import copy

import numpy as np
import pytest
import torch
from pairs import CLASSES, SAMPLES, make_batch, make_pair, outputs_of
from scipy.stats import chisquare

from kdexp.contracts import UNLABELED, Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.crd import CRD, Negatives, nce
from kdexp.models.cnn import cnn

STEP = torch.tensor(3)


def authors_loss(scores, constant, samples):
    """Equation 18 as the authors write it: probabilities, with the noise probability 1 / samples."""
    total, k = 0.0, scores.shape[1] - 1
    for row in scores.tolist():
        p = np.exp(np.array(row)) / constant
        total -= np.log(p[0] / (p[0] + k / samples))
        total -= sum(np.log((k / samples) / (x + k / samples)) for x in p[1:])
    return total / len(scores)


def draw(negatives: Negatives, index, step):
    """Indices (N, K) of the samples that each is told from."""
    return negatives.pool[negatives(index, step)]


@pytest.mark.parametrize("samples", [40, 50000])
def test_nce_is_the_authors_loss_whatever_the_size_of_the_memory(samples):
    torch.manual_seed(0)
    scores = torch.randn(5, 8, dtype=torch.float64)
    log_z = scores.exp().mean().log()
    expected = authors_loss(scores, scores.exp().mean().item() * samples, samples)
    assert nce(scores, log_z).item() == pytest.approx(expected, rel=1e-12)


def test_nce_stays_finite_where_the_quotients_underflow():
    # log h(0) = -log(1 + K Z) = -500 - log 2; for the noise log(1 - h(600)) = -(600 - 500 - log 2).
    scores = torch.tensor([[0.0, 600.0, -600.0]])
    log_2 = np.log(2)
    assert nce(scores, torch.tensor(500.0)).item() == pytest.approx(500 + log_2 + 100 - log_2, rel=1e-6)


@pytest.fixture
def target():
    torch.manual_seed(0)
    labels = torch.randint(4, (50,))
    labels[[3, 17, 30]] = UNLABELED
    return labels


def test_negatives_have_another_label_and_none_is_unlabelled(target):
    index = torch.arange(50)
    drawn = draw(Negatives(target, 20), index, STEP)
    assert drawn.shape == (50, 20)
    assert (target[drawn] != target[:, None]).all()
    assert (target[drawn] != UNLABELED).all()


def test_all_samples_with_another_label_are_drawn_equally_often(target):
    negatives = Negatives(target, 30)
    for sample in (0, 17):
        drawn = torch.cat([draw(negatives, torch.tensor([sample]), torch.tensor(step)) for step in range(400)])
        counts = np.bincount(drawn.flatten(), minlength=50)
        eligible = ((target != target[sample]) & (target != UNLABELED)).numpy()
        assert counts[~eligible].sum() == 0
        assert chisquare(counts[eligible]).pvalue > 0.001


def test_draws_of_neighbours_and_of_successive_steps_are_independent():
    negatives = Negatives(torch.arange(1000) % 2, 400)
    draws = [
        draw(negatives, torch.tensor([i]), torch.tensor(s)).flatten() // 2 for i, s in ((0, 0), (2, 0), (0, 2), (4, 7))
    ]
    for a in range(4):
        for b in range(a):
            assert abs(np.corrcoef(draws[a], draws[b])[0, 1]) < 0.2
            assert (draws[a] == draws[b]).float().mean() < 0.05


def test_draws_depend_on_the_sample_and_the_step_alone(target):
    negatives = Negatives(target, 30)
    index = torch.tensor([5, 2, 40])
    whole = draw(negatives, index, STEP)
    torch.manual_seed(1)
    assert torch.equal(draw(negatives, index.flip(0), STEP), whole.flip(0))
    assert torch.equal(draw(negatives, index[1:2], STEP), whole[1:2])
    assert not torch.equal(draw(negatives, index, STEP + 1), whole)


def test_no_more_are_drawn_than_there_are_to_choose_from():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    assert Negatives(labels, 16384).count == 3  # for class 0
    assert Negatives(labels, 2).count == 2


def test_multilabel_negatives_have_another_set_of_labels():
    target = torch.tensor([[1.0, 0], [1, 0], [1, 1], [0, 0], [-1, -1]])
    drawn = draw(Negatives(target, 100), torch.arange(5), STEP)
    assert drawn.shape == (5, 2)
    assert (target[drawn] != target[:, None]).any(2).all()
    assert (drawn != 4).all()


def test_without_any_label_negatives_are_all_other_samples():
    negatives = Negatives(torch.full((6,), UNLABELED), 100)
    drawn = torch.cat([draw(negatives, torch.arange(6), torch.tensor(step)) for step in range(20)], 1)
    assert negatives.count == 5
    for sample in range(6):
        assert set(drawn[sample].tolist()) == set(range(6)) - {sample}


def test_one_label_tells_as_little_as_none():
    drawn = draw(Negatives(torch.zeros(5, dtype=torch.int64), 300), torch.arange(5), STEP)
    assert drawn.shape == (5, 4)
    assert (drawn != torch.arange(5)[:, None]).all()


def embedded(layer, features):
    vectors = layer(features).detach().numpy().astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_two_steps_are_the_authors_procedure(pair):
    """Memory, constants and loss of two batches, sample by sample."""
    torch.manual_seed(0)
    loss = CRD(pair, negatives=7, temperature=0.2, momentum=0.75, dimension=6)
    memory = [loss.student_memory.numpy().astype(np.float64), loss.teacher_memory.numpy().astype(np.float64)]
    constants = None
    for step, seed in enumerate((1, 2)):
        batch = make_batch(6, seed=seed)
        student, teacher = outputs_of(loss, pair, batch)
        new = [
            embedded(loss.student_embedding, student.features["pool"]),
            embedded(loss.teacher_embedding, teacher.features["pool"]),
        ]
        drawn = draw(loss.negatives, batch.index, torch.tensor(step))
        assert (pair.target[drawn] != batch.target[:, None]).all()
        scores = []
        for own, other in ((0, 1), (1, 0)):
            rows = []
            for n, index in enumerate(batch.index.tolist()):
                partners = memory[other][[index, *drawn[n].tolist()]]
                rows.append(partners @ new[own][n] / 0.2)
            scores.append(np.array(rows))
        if constants is None:
            constants = [np.exp(s).mean() * SAMPLES for s in scores]
        expected = sum(authors_loss(s, z, SAMPLES) for s, z in zip(scores, constants, strict=True))
        assert loss(student, teacher, batch).item() == pytest.approx(expected, rel=1e-5)
        for bank, vectors in zip(memory, new, strict=True):
            for n, index in enumerate(batch.index.tolist()):
                moved = 0.75 * bank[index] + 0.25 * vectors[n]
                bank[index] = moved / np.linalg.norm(moved)
        np.testing.assert_allclose(loss.student_memory, memory[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(loss.teacher_memory, memory[1], rtol=1e-5, atol=1e-6)


def test_a_sample_that_is_twice_in_a_batch_is_remembered_by_its_mean(pair, batch):
    """As resampling by class does."""
    torch.manual_seed(0)
    loss = CRD(pair, momentum=0.5, dimension=6)
    before = loss.student_memory[11].numpy().copy()
    twice = Batch(batch.inputs, batch.target, torch.tensor([4, 11, 7, 11, 8, 9]))
    student, teacher = outputs_of(loss, pair, twice)
    loss(student, teacher, twice)
    new = embedded(loss.student_embedding, student.features["pool"])
    moved = before / 2 + (new[1] + new[3]) / 4
    np.testing.assert_allclose(loss.student_memory[11], moved / np.linalg.norm(moved), rtol=1e-5, atol=1e-6)


def test_the_backward_pass_uses_the_memory_before_the_batch(pair, batch):
    """Finite differences of the student's features, along a random direction."""
    torch.manual_seed(0)
    loss = CRD(pair, dimension=6).double()
    student, teacher = outputs_of(loss, pair, batch)
    features, goal = student.features["pool"].detach().double(), {"pool": teacher.features["pool"].double()}
    loss(Outputs(student.logits, {"pool": features}), Outputs(teacher.logits, goal), batch)  # sets Z

    def value(vectors):
        return copy.deepcopy(loss)(Outputs(student.logits, {"pool": vectors}), Outputs(teacher.logits, goal), batch)

    leaf, direction, step = features.clone().requires_grad_(), torch.randn_like(features), 1e-5
    value(leaf).backward()
    slope = (value(features + step * direction) - value(features - step * direction)) / (2 * step)
    assert (leaf.grad * direction).sum().item() == pytest.approx(slope.item(), rel=1e-5)


def test_training_makes_the_students_own_partner_the_nearest(pair):
    torch.manual_seed(0)
    loss = CRD(pair)
    optimizer = torch.optim.Adam([*pair.student.network.parameters(), *loss.parameters()], lr=1e-3)
    whole = make_batch(SAMPLES)
    for _ in range(50):  # its batch norm gets statistics, or all its features are alike
        pair.teacher.network.train()(whole.inputs)
    shares = []
    for step in range(200):
        student, teacher = outputs_of(loss, pair, whole)
        if step in (0, 199):
            vectors = embedded(loss.student_embedding, student.features["pool"])
            goals = embedded(loss.teacher_embedding, teacher.features["pool"])
            likeness = vectors @ goals.T
            other = (whole.target[:, None] != whole.target).numpy()
            rivals = np.where(other, likeness, -np.inf).max(1)
            shares.append((likeness.diagonal() > rivals).mean())
        optimizer.zero_grad()
        loss(student, teacher, whole).backward()
        optimizer.step()
    assert shares[0] < 0.4
    assert shares[1] > 0.9


def test_a_resumed_loss_goes_on_where_it_was(pair):
    torch.manual_seed(0)
    loss, later = CRD(pair), CRD(pair)
    first, second = make_batch(6, seed=1), make_batch(6, seed=2)
    loss(*outputs_of(loss, pair, first), first)
    later.load_state_dict(loss.state_dict())
    assert loss.state_dict().keys() >= {"student_memory", "teacher_memory", "log_z", "step"}
    values = [module(*outputs_of(module, pair, second), second).item() for module in (loss, later)]
    assert values[0] == values[1]


def test_samples_of_one_class_beside_each_other_in_a_large_batch_are_not_contrasted(pair):
    """A batch of the same class has the noise of other classes only."""
    same = (pair.target == 0).nonzero().flatten()
    batch = Batch(torch.randn(len(same), 1, 8, 8), pair.target[same], same)
    loss = CRD(pair)
    assert (pair.target[draw(loss.negatives, batch.index, loss.step)] != 0).all()
    assert loss(*outputs_of(loss, pair, batch), batch).isfinite()


@pytest.mark.parametrize(
    ("setting", "value", "rule"),
    [
        ("negatives", 0, "at least 1"),
        ("temperature", 0, "> 0"),
        ("momentum", 1, "in [0, 1)"),
        ("dimension", 0, "at least 1"),
    ],
)
def test_bad_settings_are_refused(pair, setting, value, rule):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        CRD(pair, **{setting: value})
    assert str(error.value) == f"feature_loss.crd.{setting} must be {rule}, got {value}"


def test_the_published_number_of_negatives_is_kept_where_there_are_enough():
    pair = make_pair(cnn(CLASSES, (1, 8, 8), width=4), cnn(CLASSES, (1, 8, 8), width=4))
    large = TeacherStudentPair(pair.student, pair.teacher, torch.arange(40000) % CLASSES, CLASSES)
    loss, batch = CRD(large), make_batch(4)
    assert loss.negatives(batch.index, loss.step).shape == (4, 16384)
    loss(*outputs_of(loss, pair, batch), batch).backward()
    assert loss.student_embedding.weight.grad.isfinite().all()
