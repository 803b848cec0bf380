"""Text classification: one row of logits for each text."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kdexp.contracts import Capability, Kind, Source
from kdexp.data.splits import check_source
from kdexp.data.texts import check_texts
from kdexp.tasks.classification import Classification


@dataclass(frozen=True)
class Text(Classification):
    """Classification of texts: see `kdexp.contracts.Task`; inputs are (N, L) int32 code points."""

    supports: frozenset[Capability] = field(default=frozenset({"curves", "robustness", "texts"}), init=False)

    def networks(self, input_shape: Sequence[int]) -> Sequence[str]:
        """See `kdexp.contracts.Task`."""
        return ("textcnn", "textrnn", "text_transformer", "hf_text", "huggingface")

    def check_source(self, source: Source, kind: Kind, num_classes: int, input_shape: Sequence[int] | None) -> None:
        """See `kdexp.data.texts.check_texts` and `kdexp.data.splits.check_source`."""
        check_texts(source)
        check_source(source, kind, num_classes, input_shape)
