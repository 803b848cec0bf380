"""From a text to the numbers of its tokens, inside the network: ``pip install 'kdexp[text]'``.

So teacher and student may have different vocabularies, and each has its own in its weights.
"""

import hashlib
import importlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

KINDS = ("words", "bpe", "wordpiece")
_PADDING, _UNKNOWN = "[PAD]", "[UNK]"
_UNKNOWNS = (_UNKNOWN, "<unk>")
_ROUNDED_TO = 8  # tokens: few different lengths of a batch, and padding is masked
_REMEMBERED = 100_000  # texts whose tokens are kept


class Tokens(nn.Module):
    """Texts to the numbers of their tokens; a buffer holds the tokenizer (``tokenizer.json`` of Hugging Face).

    Module: ``mask``, whose output (N, T) float32 is 1 where a token is and 0 at padding.

    Args:
        kind: of a tokenizer that is found in the training texts: ``words``, lowercased words and punctuation marks;
            ``bpe`` (Sennrich et al. 2016, arXiv 1508.07909); ``wordpiece`` (Schuster & Nakajima 2012), both of them of
            the pieces of such words.
        vocab_size: most entries of the vocabulary, at least 3; two stand for padding and for what is unknown.
        max_tokens: of a text; what is longer is cut.
        file: a tokenizer.json to take instead; None: see `prepare`.
        word_dropout: in training the probability that a token is taken for the unknown one, in [0, 1).

    Raises:
        ValueError: the library is not installed; a file or a setting breaks a rule: one line.
    """

    any_size = ("vocabulary",)  # buffers whose shapes are those of the file that they are loaded from

    def __init__(
        self,
        kind: str = "words",
        *,
        vocab_size: int,
        max_tokens: int,
        file: str | None = None,
        word_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"tokenizer.kind must be one of {', '.join(KINDS)}, got {kind}")
        check_sizes(max_tokens=max_tokens)
        if vocab_size < 3:
            raise ValueError(f"vocab_size must be at least 3, got {vocab_size}")
        if not 0 <= word_dropout < 1:
            raise ValueError(f"word_dropout must be in [0, 1), got {word_dropout}")
        _library()
        self._kind, self._vocab_size, self._max_tokens, self._dropout = kind, vocab_size, max_tokens, word_dropout
        self._encoder: _Encoder | None = None
        self.vocabulary: Tensor
        self.register_buffer("vocabulary", torch.zeros(0, dtype=torch.uint8))
        self.mask = nn.Identity()
        if file is not None:
            self.take(_read(file), f"tokenizer.file {file}")

    def take(self, json: str, of: str) -> None:
        """Take a tokenizer.

        Args:
            json: what its tokenizer.json says.
            of: where it comes from, for messages.

        Raises:
            ValueError: it is none, or has more entries than vocab_size.
        """
        self._encoder = self._checked(_Encoder(json, self._max_tokens, of), of)
        self.vocabulary = torch.frombuffer(bytearray(json.encode()), dtype=torch.uint8).to(self.vocabulary.device)

    def prepare(self, inputs: Tensor) -> None:
        """Find the vocabulary in the training texts, unless there is one, and say how many texts are cut.

        Args:
            inputs: (N, L) code points, see `kdexp.contracts.Batch`.
        """
        rows = _codes(inputs)
        if not len(self.vocabulary):
            self.take(_trained(self._kind, self._vocab_size, [_text(row) for row in rows]), "the training texts")
        encoder = self._own_encoder()
        cut = sum(map(encoder.is_cut, rows))
        log.info(
            "tokens: %d entries in the vocabulary; of %d training texts %d have more than max_tokens=%d and are cut",
            encoder.size,
            len(rows),
            cut,
            self._max_tokens,
        )

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens of texts.

        Args:
            inputs: (N, L) code points, whole numbers of any dtype, 0 after the end of each text.

        Returns:
            Numbers of the tokens (N, T) int64, 0 at padding, and the mask (N, T) bool. In training T is that of the
            longest text of the batch, a multiple of 8 or `max_tokens`; else always `max_tokens`, so that what a network
            gives for a sample does not depend on the others. Every text has at least one token.

        Raises:
            ValueError: there is no vocabulary yet, and a text is not empty.
        """
        if inputs.is_meta:  # shapes alone are wanted
            ids = torch.zeros(len(inputs), self._max_tokens, dtype=torch.int64, device="meta")
            return ids, self.mask(torch.ones_like(ids, dtype=torch.float32)).bool()
        rows = _codes(inputs)
        if rows.any() and not len(self.vocabulary):
            raise ValueError(
                "a network must have a vocabulary before it reads texts: call tokens.prepare(inputs) first"
            )
        ids, lengths = self._own_encoder().encoded(rows)
        if self.training:
            longest = -(-int(lengths.max()) // _ROUNDED_TO) * _ROUNDED_TO
            ids = ids[:, :longest]
        ids, lengths = ids.to(inputs.device), lengths.to(inputs.device)
        is_token = torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)
        if self.training and self._dropout:
            dropped = (torch.rand(ids.shape, device=ids.device) < self._dropout) & is_token
            ids = ids.where(~dropped, self._own_encoder().unknown)
        self.mask(is_token.float())
        return ids, is_token

    def extra_repr(self) -> str:
        """What of two networks must be alike for one to be run in the other's place."""
        settings = f"{self._kind}, vocab_size={self._vocab_size}, max_tokens={self._max_tokens}"
        if self.vocabulary.is_meta:
            return settings
        return f"{settings}, vocabulary={hashlib.sha256(self.vocabulary.cpu().numpy().tobytes()).hexdigest()[:8]}"

    def _own_encoder(self) -> "_Encoder":
        if self._encoder is None:
            if not len(self.vocabulary):
                return _untrained(self._max_tokens)
            json = self.vocabulary.cpu().numpy().tobytes().decode()
            self._encoder = self._checked(
                _Encoder(json, self._max_tokens, "vocabulary"), "the vocabulary in the weights"
            )
        return self._encoder

    def _checked(self, encoder: "_Encoder", of: str) -> "_Encoder":
        if encoder.size > self._vocab_size:
            raise ValueError(f"vocab_size must be at least {encoder.size}, the entries of {of}, got {self._vocab_size}")
        return encoder

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        given = state_dict.get(f"{prefix}vocabulary")
        if given is not None:
            self.vocabulary = self.vocabulary.new_zeros(given.shape)
            self._encoder = None
        super()._load_from_state_dict(state_dict, prefix, *args)


def check_texts(model: str, input_shape: Sequence[int]) -> None:
    """See that inputs can be texts.

    Raises:
        ValueError: input_shape is not (L).
    """
    if len(input_shape) != 1:
        raise ValueError(f"{model} takes texts: input_shape must be (characters), got {list(input_shape)}")


def check_sizes(**sizes: int) -> None:
    """See that sizes are whole numbers of at least 1.

    Raises:
        ValueError: one is not.
    """
    for name, size in sizes.items():
        if type(size) is not int:
            raise ValueError(f"{name} must be a whole number, got {size}")
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


class _Encoder:
    """A tokenizer, with the tokens of the texts that it has seen; a copied network shares it."""

    def __init__(self, json: str, max_tokens: int, of: str) -> None:
        try:
            self._tokenizer = _library().Tokenizer.from_str(json)
        except Exception as error:  # the library has no type of its own for it
            reason = " ".join(str(error).split())
            raise ValueError(f"{of} must be a tokenizer.json of Hugging Face's tokenizers, got: {reason}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._max_tokens = max_tokens
        self._seen: dict[bytes, _Seen] = {}
        # Of a tokenizer of somebody's the numbers may have gaps, and the embedding needs a row for the largest.
        self.size: int = max(self._tokenizer.get_vocab().values(), default=-1) + 1
        numbers = (self._tokenizer.token_to_id(name) for name in _UNKNOWNS)
        self.unknown: int = next((number for number in numbers if number is not None), 0)

    def __deepcopy__(self, memo: object) -> "_Encoder":
        return self

    def is_cut(self, row: np.ndarray) -> bool:
        """Whether a text has more tokens than are read."""
        return self._of(row).is_cut

    def encoded(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """(N, max_tokens) int64, and how many of them are tokens, (N,)."""
        found = [self._of(row) for row in rows]
        return torch.stack([one.ids for one in found]), torch.tensor([one.length for one in found])

    def _of(self, row: np.ndarray) -> "_Seen":
        key = row[: int(np.count_nonzero(row))].tobytes()
        known = self._seen.get(key)
        if known is None:
            encoding = self._tokenizer.encode(_text(row))
            numbers = encoding.ids or [self.unknown]
            ids = torch.zeros(self._max_tokens, dtype=torch.int64)
            ids[: len(numbers)] = torch.tensor(numbers)
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            known = self._seen[key] = _Seen(ids, len(numbers), bool(encoding.overflowing))
        return known


class _Seen(NamedTuple):
    """The tokens of a text.

    Attributes:
        ids: (max_tokens,) int64.
        length: how many of them are tokens.
        is_cut: whether the text has more.
    """

    ids: Tensor
    length: int
    is_cut: bool


def _untrained(max_tokens: int) -> _Encoder:
    """What stands for a vocabulary before there is one: everything is unknown."""
    return _Encoder(_trained("words", 3, []), max_tokens, "no texts")


def _trained(kind: str, vocab_size: int, texts: Sequence[str]) -> str:
    """The tokenizer.json of a tokenizer that is found in texts."""
    library = _library()
    models, trainers = library.models, library.trainers
    model, trainer = {
        "words": (models.WordLevel, trainers.WordLevelTrainer),
        "bpe": (models.BPE, trainers.BpeTrainer),
        "wordpiece": (models.WordPiece, trainers.WordPieceTrainer),
    }[kind]
    tokenizer = library.Tokenizer(model(unk_token=_UNKNOWN))
    tokenizer.normalizer = library.normalizers.Sequence([library.normalizers.NFC(), library.normalizers.Lowercase()])
    tokenizer.pre_tokenizer = library.pre_tokenizers.Whitespace()
    # The trainer numbers the letters within words in an order of its own, another each time, unless they are known.
    letters = sorted(set("".join(map(tokenizer.normalizer.normalize_str, texts)))) if kind == "wordpiece" else []
    within = [f"##{letter}" for letter in letters if not letter.isspace()]
    settings = {"vocab_size": vocab_size, "special_tokens": [_PADDING, _UNKNOWN, *within], "show_progress": False}
    tokenizer.train_from_iterator(texts, trainer(**settings))
    if within:
        tokenizer = _with_model(tokenizer, models.WordPiece(tokenizer.get_vocab(), unk_token=_UNKNOWN))
    json: str = tokenizer.to_str()
    return json


def _with_model(tokenizer: Any, model: object) -> Any:
    """The same with another model, in which no piece is found before a text is cut into words."""
    other = _library().Tokenizer(model)
    other.normalizer, other.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    other.add_special_tokens([_PADDING, _UNKNOWN])
    return other


def _read(file: str) -> str:
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"tokenizer.file must be an existing tokenizer.json, got {file}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"tokenizer.file must be a tokenizer.json, got {file}, which is no text") from error


def _codes(inputs: Tensor) -> np.ndarray:
    """(N, L) int32."""
    return inputs.detach().to("cpu", torch.int32).contiguous().numpy()


def _text(row: np.ndarray) -> str:
    return str(row[: int(np.count_nonzero(row))].astype("<i4").tobytes().decode("utf-32-le", "replace"))


def _library() -> ModuleType:
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise ValueError("tokenizers must be installed to read texts: pip install 'kdexp[text]'") from error
