import pytest
import torch

from kdexp.contracts import UNLABELED, Batch
from kdexp.experiment.decision_collector import DecisionCollector
from kdexp.report import decisions


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel"])
def test_what_is_decided_is_kept_in_the_order_of_the_split(tmp_path, kind):
    torch.manual_seed(0)
    columns = 1 if kind == "binary" else 3
    logits, teacher = torch.randn(2, 5, columns), torch.randn(2, 5, columns)
    target = {
        "multiclass": torch.randint(3, (2, 5)),
        "binary": torch.randint(2, (2, 5)),
        "multilabel": torch.randint(2, (2, 5, 3)).float(),
    }[kind]
    target[0, 0] = UNLABELED
    collector = DecisionCollector(kind)
    for part in range(2):
        batch = Batch(torch.zeros(5, 4), target[part], torch.arange(5 * part, 5 * part + 5))
        collector(batch, logits[part], teacher[part])
    collector.save(tmp_path)
    found = decisions.read(tmp_path)
    both = logits.flatten(0, 1), teacher.flatten(0, 1)
    expected = [(each.argmax(1, keepdim=True) if kind == "multiclass" else (each > 0)).int() for each in both]
    assert found.student.tolist() == expected[0].tolist()
    assert found.teacher.tolist() == expected[1].tolist()
    assert found.label.tolist() == target.reshape(10, -1).int().tolist()


def test_a_control_has_no_teacher(tmp_path):
    collector = DecisionCollector("multiclass")
    collector(Batch(torch.zeros(2, 4), torch.tensor([0, 1]), torch.arange(2)), torch.eye(2), None)
    collector.save(tmp_path)
    assert decisions.read(tmp_path).teacher is None
