import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pairs import CNN, SHAPE, make_batch, make_pair, outputs_of

from kdexp.contracts import FeatureLayers
from kdexp.feature_losses.reviewkd import Fusion, ReviewKD, hcl
from kdexp.models.cnn import cnn
from kdexp.models.rnn import rnn
from kdexp.models.vgg_cifar import vgg8


def by_hand(student, teacher):
    """Means over cells by reshaping, for sizes that the cells divide."""
    student, teacher = student.detach().numpy(), teacher.detach().numpy()
    size = student.shape[2]
    values, factors = [((student - teacher) ** 2).mean()], [1.0]
    for cells in (4, 2, 1):
        if cells >= size:
            continue
        pooled = [
            x.reshape(*x.shape[:2], cells, size // cells, cells, size // cells).mean((3, 5)) for x in (student, teacher)
        ]
        values.append(((pooled[0] - pooled[1]) ** 2).mean())
        factors.append(factors[-1] / 2)
    return np.dot(values, factors) / sum(factors)


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_hcl_is_the_weighted_mean_of_errors_of_means(size):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, size, size, dtype=torch.float64)
    assert hcl(student, teacher).item() == pytest.approx(by_hand(student, teacher), rel=1e-12)


def test_hcl_hand_computed():
    # Errors of 1 with opposite signs cancel in the mean of all: (1 + 0 / 2) / (1 + 1 / 2).
    student = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])[None, None]
    assert hcl(student, torch.zeros(1, 1, 2, 2)).item() == pytest.approx(2 / 3)


def test_hcl_of_a_sequence_pools_its_length():
    # Length 4, width 1: levels 2 and 1. Pair means are 1 and -1, the mean of all is 0.
    student = torch.tensor([2.0, 0.0, -2.0, 0.0]).view(1, 1, 4, 1)
    found = hcl(student, torch.zeros_like(student))
    assert found.item() == pytest.approx((2 + 1 / 2 + 0) / (1 + 1 / 2 + 1 / 4))


def test_gradient_of_hcl_passes_a_finite_difference_check():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 2, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: hcl(s, teacher), student.requires_grad_())


def test_fusion_weighs_each_position_of_the_stage_and_of_what_is_deeper():
    torch.manual_seed(0)
    fusion = Fusion(3, 4, 5, deeper=True).eval().double()
    maps, deeper = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 4, 2, 2).double()
    leaving, mixed = fusion(maps, deeper, [8, 8])
    scale = 1 / np.sqrt(1 + 1e-5)  # fresh batch norm in eval mode
    entered = torch.einsum("mc,nchw->nmhw", fusion.enter[0].weight[:, :, 0, 0], maps) * scale
    weight, bias = fusion.attention[0].weight[:, :, 0, 0], fusion.attention[0].bias
    for n, h, w in np.ndindex(2, 4, 4):
        own, other = entered[n, :, h, w], deeper[n, :, h // 2, w // 2]
        shares = torch.sigmoid(weight @ torch.cat((own, other)) + bias)
        expected = shares[0] * own + shares[1] * other
        for place in ((2 * h, 2 * w), (2 * h + 1, 2 * w + 1)):
            torch.testing.assert_close(mixed[n, :, place[0], place[1]], expected)
    torch.testing.assert_close(leaving, F.conv2d(mixed, fusion.leave[0].weight, padding=1) * scale)


def test_stages_are_reviewed_from_the_output_back(pair, batch):
    """The chain of the paper's figure, step by step, with the same layers."""
    loss = ReviewKD(pair).eval()
    assert loss.student_paths == ["stage1", "stage2", "stage3", "pool"]
    assert loss.teacher_paths == ["stage1.-2", "stage2.-2", "stage3.-2", "pool"]
    student, teacher = outputs_of(loss, pair, batch)
    maps = [student.features[path] for path in loss.student_paths[:3]]
    goals = [teacher.features[path] for path in loss.teacher_paths[:3]]
    pooled, goal = (side.features["pool"][:, :, None, None] for side in (student, teacher))
    fourth, carried = loss.fusions[3](pooled, None, [1, 1])
    third, carried = loss.fusions[2](maps[2], carried, [2, 2])
    second, carried = loss.fusions[1](maps[1], carried, [4, 4])
    first, carried = loss.fusions[0](maps[0], carried, [8, 8])
    expected = sum(by_hand(s, t) for s, t in zip((first, second, third, fourth), (*goals, goal), strict=True))
    assert loss(student, teacher, batch).item() == pytest.approx(expected, rel=1e-5)


def test_the_deepest_stage_reaches_every_term_and_the_first_stage_only_its_own(pair, batch):
    loss = ReviewKD(pair).eval()
    student, _ = outputs_of(loss, pair, batch)
    features = {path: f.detach().clone().requires_grad_() for path, f in student.features.items()}
    fused, terms = None, []
    for i in (3, 2, 1, 0):
        maps = features[loss.student_paths[i]]
        reviewed, fused = loss.fusions[i](maps if maps.ndim == 4 else maps[:, :, None, None], fused, [8, 8])
        terms.append(reviewed.square().sum())
    deepest = [torch.autograd.grad(t, features["pool"], retain_graph=True)[0].abs().sum() for t in terms]
    assert min(deepest) > 0
    shallow = [torch.autograd.grad(t, features["stage1"], retain_graph=True, allow_unused=True)[0] for t in terms]
    assert [g is not None for g in shallow] == [False, False, False, True]


def test_channels_in_the_middle_are_the_deepest_stages_and_at_most_512(pair):
    assert {fusion.enter[0].out_channels for fusion in ReviewKD(pair).fusions} == {16}
    wide = make_pair(cnn(5, SHAPE, width=160), cnn(5, SHAPE, width=4))
    assert {fusion.enter[0].out_channels for fusion in ReviewKD(wide).fusions} == {512}


def test_other_numbers_of_stages_are_matched_from_the_output_on():
    vgg = FeatureLayers([f"stage{i}" for i in range(1, 6)], "pool", "classifier")
    loss = ReviewKD(make_pair(cnn(5, SHAPE, width=4), vgg8(5, SHAPE), CNN, vgg))
    assert loss.student_paths == ["stage1", "stage2", "stage3", "pool"]
    assert loss.teacher_paths == ["stage3", "stage4", "stage5", "pool"]


def test_sequences_and_vectors_train_also_in_a_batch_of_one(vector_pair):
    layers = FeatureLayers(["recurrent"], "pool", "classifier")
    sequences = make_pair(rnn(5, SHAPE, hidden=6), rnn(5, SHAPE, hidden=8), layers, layers)
    for pair in (vector_pair, sequences):
        loss = ReviewKD(pair)
        for samples in (6, 1):
            batch = make_batch(samples)
            value = loss(*outputs_of(loss, pair, batch), batch)
            value.backward()
            assert value.isfinite()
        assert all(p.grad.isfinite().all() for p in loss.parameters())


def test_an_mlp_is_reviewed_once(vector_pair):
    loss = ReviewKD(vector_pair)
    assert loss.student_paths == ["hidden"]
    assert loss.teacher_paths == ["hidden.-3"]
