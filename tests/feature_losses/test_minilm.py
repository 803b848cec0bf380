import numpy as np
import pytest
import torch
from pairs import CNN, SHAPE, encoders, make_batch, make_pair, outputs_of
from scipy.special import softmax
from scipy.stats import entropy

from kdexp.contracts import Outputs
from kdexp.feature_losses.minilm import MiniLM, minilm
from kdexp.models.cnn import cnn

LENGTHS = [1, 4, 2, 3]
MASK = torch.arange(4) < torch.tensor(LENGTHS).unsqueeze(1)


def random(features, seed):
    return torch.randn(4, 4, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(own_queries, own_keys, goal_queries, goal_keys, lengths, heads):
    """The paper's equation 7, text by text, without the padding."""
    values = []
    for n, length in enumerate(lengths):
        relations = []
        for queries, keys in ((goal_queries, goal_keys), (own_queries, own_keys)):
            parts = [np.split(each[n, :length].detach().double().numpy(), heads, axis=1) for each in (queries, keys)]
            relations.append([softmax(q @ k.T / np.sqrt(q.shape[1]), axis=1) for q, k in zip(*parts, strict=True)])
        values.append(np.mean([entropy(goal, own, axis=1) for goal, own in zip(*relations, strict=True)]))
    return np.mean(values)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_it_is_the_divergence_of_attention_over_tokens_alone(heads):
    own, goal = (random(6, 0), random(6, 1)), (random(12, 2), random(12, 3))
    expected = by_hand(*own, *goal, LENGTHS, heads)
    np.testing.assert_allclose(minilm(*own, *goal, MASK, heads), expected, rtol=1e-10)
    junk = [each.where(MASK.unsqueeze(2), 1e4) for each in (*own, *goal)]
    np.testing.assert_allclose(minilm(*junk, MASK, heads), expected, rtol=1e-10)


def test_gradients_reach_the_tokens_of_the_student_alone():
    own = [random(6, seed).requires_grad_() for seed in (0, 1)]
    goal = [random(6, seed).requires_grad_() for seed in (2, 3)]
    assert torch.autograd.gradcheck(lambda q, k: minilm(q, k, *goal, MASK, 2), own)
    minilm(*own, *goal, MASK, 2).backward()
    assert all(each.grad[~MASK].eq(0).all() for each in own)
    assert all(each.grad is None for each in goal)


def test_the_module_adds_attention_and_values_of_the_last_layers():
    torch.manual_seed(0)
    pair = encoders(4, 6, depths=(2, 3))
    loss, batch = MiniLM(pair), make_batch()
    parts = ("query", "key", "value")
    assert loss.student_paths == [*(f"blocks.1.attention.{part}" for part in parts), "mask"]
    student, teacher = outputs_of(loss, pair, batch)
    own = [student.features[f"blocks.1.attention.{part}"] for part in parts]
    goal = [teacher.features[f"blocks.2.attention.{part}"] for part in parts]
    lengths = student.features["mask"].sum(1).long().tolist()
    assert len(set(lengths)) > 2
    expected = by_hand(*own[:2], *goal[:2], lengths, 2) + by_hand(own[2], own[2], goal[2], goal[2], lengths, 2)
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)
    longest = max(lengths)
    shorter = Outputs(None, {path: feature[:, :longest] for path, feature in student.features.items()})
    torch.testing.assert_close(loss(shorter, teacher), loss(student, teacher))


def test_heads_are_the_teachers_unless_they_are_set():
    with pytest.raises(ValueError, match=r"^feature_loss.minilm.heads must divide .*, 4 and 12, got 3$"):
        MiniLM(encoders(4, 12, heads=(2, 3)))
    MiniLM(encoders(4, 12, heads=(2, 3)), heads=4)
    with pytest.raises(ValueError, match=r"^feature_loss.minilm.heads must divide .*, 4 and 12, got 0$"):
        MiniLM(encoders(4, 12), heads=0)


def test_a_network_without_attention_is_refused():
    pair = make_pair(cnn(5, SHAPE, width=4), cnn(5, SHAPE, width=4), CNN, CNN)
    with pytest.raises(ValueError, match=r"^feature_loss=minilm needs linear layers query, key, value .* in 'stage3'$"):
        MiniLM(pair)
