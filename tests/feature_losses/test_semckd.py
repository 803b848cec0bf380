import numpy as np
import pytest
import torch
from pairs import CNN, SHAPE, make_batch, make_pair, outputs_of
from scipy.special import softmax

from kdexp.contracts import Batch, FeatureLayers, Outputs
from kdexp.feature_losses.semckd import SemCKD, profile, semckd
from kdexp.models.cnn import cnn
from kdexp.models.vgg_cifar import vgg8

VGG = FeatureLayers([f"stage{i}" for i in range(1, 6)], "pool", "classifier")


def test_is_the_attended_error_of_all_pairs_sample_by_sample():
    torch.manual_seed(0)
    shapes = [[(3, 4, 4), (5, 2, 2)], [(3, 2, 2), (5, 2, 2)], [(3, 1, 1), (5, 1, 1)]]
    projected, targets = ([[torch.randn(4, *shape) for shape in row] for row in shapes] for _ in range(2))
    attention = torch.rand(4, 3, 2).softmax(2)
    total = 0.0
    for n, i, j in np.ndindex(4, 3, 2):
        total += attention[n, i, j].item() * ((projected[i][j][n] - targets[i][j][n]) ** 2).mean().item()
    assert semckd(projected, targets, attention).item() == pytest.approx(total / (4 * 3), rel=1e-5)


def test_with_the_published_batch_size_a_profile_is_the_sorted_row_of_inner_products():
    torch.manual_seed(0)
    maps = torch.randn(64, 3, 2, 2)
    rows = maps.flatten(1).numpy()
    np.testing.assert_allclose(profile(maps), np.sort(rows @ rows.T, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 2, 6, 100])
def test_with_another_batch_size_a_profile_is_interpolated_between_its_entries(samples):
    torch.manual_seed(0)
    maps = torch.randn(samples, 3, 2, 2, dtype=torch.float64)
    rows = np.sort(maps.flatten(1).numpy() @ maps.flatten(1).numpy().T, 1)
    places = np.linspace(0, samples - 1, 64)
    expected = [np.interp(places, np.arange(samples), row) for row in rows]
    np.testing.assert_allclose(profile(maps), expected, rtol=1e-9, atol=1e-12)


def dense(embed, rows):
    """A query or a key from two linear layers, in NumPy."""
    first, _, second = embed
    hidden = np.maximum(rows @ first.weight.detach().numpy().T + first.bias.detach().numpy(), 0)
    vectors = hidden @ second.weight.detach().numpy().T + second.bias.detach().numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_attention_is_the_softmax_over_the_teachers_stages(pair, batch):
    loss = SemCKD(pair)
    student, teacher = ([outputs.features[f"stage{i}"] for i in (1, 2, 3)] for outputs in outputs_of(loss, pair, batch))
    queries = [dense(e, profile(maps).detach().numpy()) for e, maps in zip(loss.queries, student, strict=True)]
    keys = [dense(e, profile(maps).numpy()) for e, maps in zip(loss.keys, teacher, strict=True)]
    expected = softmax(np.einsum("inf,jnf->nij", queries, keys), axis=2)
    found = loss._attention(student, teacher)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-4)
    torch.testing.assert_close(found.sum(2), torch.ones(6, 3))


def test_the_module_attends_to_projections_at_the_smaller_size(pair, batch):
    loss = SemCKD(pair).eval()
    student, teacher = outputs_of(loss, pair, batch)
    own, goal = ([outputs.features[f"stage{i}"] for i in (1, 2, 3)] for outputs in (student, teacher))
    attention = loss._attention(own, goal)
    sizes, total = (8, 4, 2), 0.0
    for i, j in np.ndindex(3, 3):
        side = min(sizes[i], sizes[j])
        maps, target = (
            f.reshape(*f.shape[:2], side, f.shape[2] // side, side, f.shape[3] // side).mean((3, 5))
            for f in (own[i], goal[j])
        )
        errors = ((loss.projections[i][j](maps) - target) ** 2).mean((1, 2, 3))
        total += (attention[:, i, j] * errors).mean().item() / 3
    assert loss(student, teacher, batch).item() == pytest.approx(total, rel=1e-5)


def test_any_batch_size_and_any_number_of_stages_train():
    pair = make_pair(cnn(5, SHAPE, width=4), vgg8(5, SHAPE), CNN, VGG)
    loss = SemCKD(pair)
    assert [len(row) for row in loss.projections] == [5, 5, 5]
    for samples in (1, 6, 40):
        batch = make_batch(samples)
        value = loss(*outputs_of(loss, pair, batch), batch)
        value.backward()
        assert value.isfinite()
    assert all(p.grad.isfinite().all() for p in loss.parameters())


def test_half_precision_does_not_overflow_in_the_inner_products(pair, batch):
    loss = SemCKD(pair)
    student, teacher = (
        Outputs(o.logits, {path: (300 * f).detach().half() for path, f in o.features.items()})
        for o in outputs_of(loss, pair, batch)
    )
    with torch.autocast("cpu", torch.float16):
        maps = [student.features[f"stage{i}"] for i in (1, 2, 3)]
        assert (maps[0].float().flatten(1).square().sum(1) > 65504).any()
        assert loss._attention(maps, [teacher.features[f"stage{i}"] for i in (1, 2, 3)]).isfinite().all()


def test_vectors_train_also_in_a_batch_of_one(vector_pair):
    loss = SemCKD(vector_pair)
    batch = make_batch(1)
    student, teacher = outputs_of(loss, vector_pair, batch)
    loss(student, teacher, Batch(batch.inputs, batch.target, batch.index)).backward()
    assert all(p.grad.isfinite().all() for p in loss.parameters())
