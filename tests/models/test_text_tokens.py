"""From texts to tokens."""

import logging
import re

import pytest
import torch

pytest.importorskip("tokenizers", reason="pip install 'kdexp[text]'")

from tokenizers import Tokenizer, models

from kdexp.data.texts import code_points
from kdexp.models.text_tokens import KINDS, Tokens
from kdexp.models.textcnn import textcnn
from kdexp.weights import load_weights, save_weights

TEXTS = ["The cat sat .", "A dog , a cat !", "Ein Käse", "the the the cat"]


def prepared(texts=TEXTS, **settings):
    tokens = Tokens(**{"vocab_size": 100, "max_tokens": 8, **settings})
    tokens.prepare(code_points(texts))
    return tokens.eval()


def test_words_are_lowercased_and_numbered_by_how_often_they_occur():
    tokens = prepared()
    ids, mask = tokens(code_points(["THE cat", "the unheard cat."]))
    words = [re.findall(r"\w+|[^\w\s]+", text.lower()) for text in TEXTS]
    counts = {word: sum(text.count(word) for text in words) for text in words for word in text}
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    number = {word: 2 + place for place, word in enumerate(ranked)}
    assert ids[0, :2].tolist() == [number["the"], number["cat"]]
    assert ids[1, :4].tolist() == [number["the"], 1, number["cat"], number["."]]
    assert mask.sum(1).tolist() == [2, 4]
    assert not ids[~mask].any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_is_found_in_the_given_texts_alone_and_always_alike(kind):
    tokens = prepared(kind=kind)
    assert torch.equal(tokens.vocabulary, prepared(kind=kind).vocabulary)
    assert not torch.equal(tokens.vocabulary, prepared([*TEXTS, "zebra zebra"], kind=kind).vocabulary)
    assert prepared(kind=kind)(code_points(["zzz"]))[0][0, 0] == 1  # unknown


def test_a_vocabulary_is_kept_once_it_is_there():
    tokens = prepared()
    before = tokens.vocabulary.clone()
    tokens.prepare(code_points(["other words"]))
    assert torch.equal(tokens.vocabulary, before)


def test_in_training_a_batch_is_as_long_as_its_longest_text_needs():
    tokens = prepared(max_tokens=30)
    texts = code_points(["the cat"] * 2 + ["the " * 9])
    assert tokens(texts)[0].shape == (3, 30)
    tokens.train()
    assert tokens(texts)[0].shape == (3, 16)
    assert tokens(texts[:2])[0].shape == (2, 8)
    assert torch.equal(tokens(texts)[0], tokens.eval()(texts)[0][:, :16])


def test_texts_that_are_cut_are_counted_once(caplog):
    with caplog.at_level(logging.INFO):
        tokens = prepared(max_tokens=3)
    assert "of 4 training texts 3 have more than max_tokens=3 and are cut" in caplog.text
    assert len(caplog.records) == 1
    assert tokens(code_points(["a b c d"]))[1].sum() == 3


def test_word_dropout_takes_tokens_and_no_padding_for_unknown_ones():
    tokens = prepared(max_tokens=40, word_dropout=0.5).train()
    texts = code_points(["the " * 20 + "cat", "cat"] * 50)
    torch.manual_seed(0)
    ids, mask = tokens(texts)
    assert not ids[~mask].any()
    assert 0.4 < float((ids[mask] == 1).float().mean()) < 0.6
    assert not (tokens.eval()(texts)[0] == 1).any()


def file_of(folder, texts=TEXTS, kind="words"):
    path = folder / "tokenizer.json"
    path.write_bytes(prepared(texts, kind=kind).vocabulary.numpy().tobytes())
    return path


def test_a_tokenizer_of_ones_own_is_taken_as_it_is(tmp_path):
    path = file_of(tmp_path, kind="bpe")
    tokens = Tokens(vocab_size=100, max_tokens=8, file=str(path)).eval()
    tokens.prepare(code_points(["nothing of this is learned"]))
    theirs = Tokenizer.from_file(str(path)).encode("The unheard cat").ids[:8]
    assert tokens(code_points(["The unheard cat"]))[0][0, : len(theirs)].tolist() == theirs


def test_a_wrong_tokenizer_is_refused_in_one_line(tmp_path):
    path = file_of(tmp_path)
    size = Tokenizer.from_file(str(path)).get_vocab_size()
    with pytest.raises(
        ValueError, match=f"^vocab_size must be at least {size}, the entries of tokenizer.file .*, got 5$"
    ):
        Tokens(vocab_size=5, max_tokens=8, file=str(path))
    with pytest.raises(ValueError, match=r"^tokenizer.file must be an existing tokenizer.json, got nowhere.json$"):
        Tokens(vocab_size=5, max_tokens=8, file="nowhere.json")
    path.write_text("{}")
    with pytest.raises(
        ValueError, match=r"^tokenizer.file .* must be a tokenizer.json of Hugging Face's tokenizers, got: "
    ):
        Tokens(vocab_size=100, max_tokens=8, file=str(path))


def test_a_tokenizer_whose_numbers_have_gaps_needs_a_row_for_the_largest(tmp_path):
    path = tmp_path / "tokenizer.json"
    Tokenizer(models.WordLevel({"[UNK]": 0, "who": 50}, unk_token="[UNK]")).save(str(path))
    with pytest.raises(ValueError, match=r"^vocab_size must be at least 51, "):
        Tokens(vocab_size=50, max_tokens=8, file=str(path))
    assert 50 in Tokens(vocab_size=51, max_tokens=8, file=str(path))(code_points(["who"]))[0]


def network(texts=None, **settings):
    built = textcnn(3, [9], {"kind": "words"}, **{"vocab_size": 50, "max_tokens": 8, "width": 4, **settings})
    if texts:
        built.tokens.prepare(code_points(texts))
    return built.eval()


def test_weights_of_a_file_bring_their_vocabulary(tmp_path):
    saved = network(TEXTS)
    save_weights(saved, tmp_path / "x.safetensors")
    for loaded in (network(), network(["other texts"])):
        load_weights(loaded, tmp_path / "x.safetensors", "student")
        assert torch.equal(loaded(code_points(TEXTS)), saved(code_points(TEXTS)))


def test_weights_for_a_vocabulary_of_another_size_are_refused_in_one_line(tmp_path):
    save_weights(network(TEXTS), tmp_path / "x.safetensors")
    with pytest.raises(
        ValueError, match=r"^student must hold the weights of this network, got .* with 'embedding.weight'"
    ):
        load_weights(network(vocab_size=51), tmp_path / "x.safetensors", "student")


def test_a_vocabulary_in_the_weights_with_too_many_entries_is_refused_in_one_line():
    state = network(TEXTS).state_dict()
    state["tokens.vocabulary"] = prepared([" ".join(f"word{i}" for i in range(60))], vocab_size=100).vocabulary
    loaded = network()
    loaded.load_state_dict(state)
    rule = r"^vocab_size must be at least 62, the entries of the vocabulary in the weights, got 50$"
    with pytest.raises(ValueError, match=rule):
        loaded(code_points(TEXTS))


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"^tokenizers must be installed to read texts: pip install 'kdexp\[text\]'$"):
        Tokens(vocab_size=5, max_tokens=8)


def test_a_network_without_a_vocabulary_reads_nothing():
    with pytest.raises(
        ValueError, match=r"^a network must have a vocabulary before it reads texts: call tokens.prepare"
    ):
        network()(code_points(TEXTS))
