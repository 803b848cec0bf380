"""Test texts, and what the networks predict of them while they are evaluated."""

from pathlib import Path

from torch import Tensor

from kdexp.contracts import Batch, Kind, Split
from kdexp.data.texts import texts_of
from kdexp.metrics.rows import decisions
from kdexp.report.example_files import evenly_spaced
from kdexp.report.text_examples import LONGEST, MOST, TextExample, write


class TextCollector:
    """Keeps the classes that are predicted of evenly spaced texts of a split.

    Args:
        split: of texts.
        kind: how logits are read: multiclass or binary.
    """

    def __init__(self, split: Split, kind: Kind) -> None:
        self._split, self._kind = split, kind
        self._places = {int(split.index[place]): place for place in evenly_spaced(len(split), MOST)}
        self._predicted: dict[int, dict[str, int]] = {}

    def __call__(self, batch: Batch, logits: Tensor, teacher_logits: Tensor | None) -> None:
        """See `kdexp.metrics.evaluate.Watcher`: keep the classes of those of the texts that are in the batch."""
        given = ({"teacher": teacher_logits} if teacher_logits is not None else {}) | {"student": logits}
        found = {name: decisions(of, self._kind).view(len(of)).tolist() for name, of in given.items()}
        for row, sample in enumerate(batch.index.tolist()):
            if sample in self._places:
                self._predicted[sample] = {name: classes[row] for name, classes in found.items()}

    def save(self, folder: Path) -> list[TextExample]:
        """The texts that were evaluated, kept in the run folder, too; long ones are cut."""
        inputs = self._split.inputs
        assert isinstance(inputs, Tensor)
        texts = texts_of(inputs[list(self._places)])
        found = [
            TextExample(sample, text[:LONGEST], int(self._split.target[place]), self._predicted[sample])
            for text, (sample, place) in zip(texts, self._places.items(), strict=True)
        ]
        write(found, folder)
        return found
