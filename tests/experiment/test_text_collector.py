"""Which test texts a run keeps, and what of them."""

import torch

from kdexp.contracts import Batch, Split
from kdexp.data.texts import code_points
from kdexp.experiment.text_collector import TextCollector
from kdexp.report.text_examples import LONGEST, MOST, read


def collected(texts, target, logits, kind, folder, teacher=None, batch=7):
    index = torch.arange(len(texts)).flip(0) + 3  # ids that are not places
    inputs = code_points([*[""] * 3, *reversed(texts)])
    collector = TextCollector(Split(inputs, target, index), kind)
    for first in range(0, len(texts), batch):
        part = slice(first, first + batch)
        given = Batch(inputs[index[part]], target[part], index[part])
        collector(given, logits[part], teacher[part] if teacher is not None else None)
    return collector.save(folder)


def test_all_of_few_texts_are_kept_with_what_each_network_says(tmp_path):
    texts = [f"text {number} \u00e9" for number in range(20)]
    student, teacher = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(0)).unbind()
    target = torch.arange(20) % 3
    found = collected(texts, target, student, "multiclass", tmp_path, teacher)
    assert found == read(tmp_path, 3)
    assert [example.text for example in found] == texts
    assert [example.truth for example in found] == target.tolist()
    assert [example.predictions["student"] for example in found] == student.argmax(1).tolist()
    assert [example.predictions["teacher"] for example in found] == teacher.argmax(1).tolist()


def test_of_many_texts_evenly_spaced_ones_are_kept_and_long_ones_are_cut(tmp_path):
    many = 2 * MOST + 1
    texts = [f"{number} " + "x" * LONGEST for number in range(many)]
    logits = torch.arange(many).remainder(2).sub(0.5).unsqueeze(1)
    found = collected(texts, torch.zeros(many, dtype=torch.int64), logits, "binary", tmp_path)
    numbers = [int(example.text.split()[0]) for example in found]
    assert len(numbers) == MOST
    assert numbers == list(range(0, 1000, 2))
    assert all(len(example.text) == LONGEST for example in found)
    assert [example.predictions for example in found] == [{"student": number % 2} for number in numbers]
