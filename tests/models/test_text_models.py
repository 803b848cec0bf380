"""What holds for every network that reads texts."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kdexp.data.texts import code_points
from kdexp.features import side
from kdexp.models.complexity import macs, parameters
from kdexp.models.hf_text import hf_text
from kdexp.models.text_transformer import text_transformer
from kdexp.models.textcnn import textcnn
from kdexp.models.textrnn import textrnn

pytest.importorskip("tokenizers", reason="pip install 'kdexp[text]'")

TEXTS = [
    "Where is Rome ?", "How many people live in Köln , Germany , today ?", "Why ?", "a " * 30, "unheard-of words",
    "Who wrote it ?", "Name the river that flows through Paris and the sea that it flows into .", "When ?",
]  # fmt: skip
INPUTS = code_points(TEXTS)
SIZES = {"vocab_size": 60, "max_tokens": 12}
TOKENIZER = {"kind": "words", "file": None}


def bert(tmp_path_factory, labels=5):
    """A folder as ``save_pretrained`` writes it, of a tiny BERT."""
    transformers = pytest.importorskip("transformers", reason="pip install 'kdexp[text]'")
    folder = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, num_labels=labels, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # not as alike as BERT's begin
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json())
    return folder


def tokenizer_json():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(
        vocab_size=60, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    return tokenizer.to_str()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bert(tmp_path_factory)


@pytest.fixture(params=["textcnn", "textrnn, gru", "textrnn, lstm", "text_transformer", "text_transformer, post", "hf"])
def network(request, folder):
    torch.manual_seed(0)
    make = {
        "textcnn": lambda: textcnn(5, [9], TOKENIZER, dropout=0.0, width=8, channels=6, **SIZES),
        "textrnn, gru": lambda: textrnn(5, [9], TOKENIZER, dropout=0.0, width=8, hidden=6, layers=2, **SIZES),
        "textrnn, lstm": lambda: textrnn(
            5, [9], TOKENIZER, dropout=0.0, width=8, hidden=6, cell="lstm", bidirectional=False, **SIZES
        ),
        "text_transformer": lambda: text_transformer(
            5, [9], TOKENIZER, dropout=0.0, width=8, heads=2, hidden=9, **SIZES
        ),
        "text_transformer, post": lambda: text_transformer(
            5, [9], TOKENIZER, dropout=0.0, width=8, heads=2, hidden=9, norm="post", **SIZES
        ),
        "hf": lambda: hf_text(5, [9], str(folder), max_tokens=12),
    }
    built = make[request.param]()
    built.tokens.prepare(INPUTS)
    return built


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_with_padding_gives_what_its_samples_give_alone(network, training):
    network.train(training)  # in training texts alone have less padding
    together = network(INPUTS)
    alone = torch.cat([network(code_points([text])) for text in TEXTS])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    assert together.std(0).max() > 1e-4  # they are not all the same


def test_in_training_and_in_evaluation_the_logits_are_the_same_but_for_rounding(network):
    torch.testing.assert_close(network.train()(INPUTS[:3]), network.eval()(INPUTS[:3]), rtol=1e-4, atol=1e-6)


def test_what_is_given_of_a_sample_in_evaluation_depends_on_no_other_sample(network):
    network.eval()
    assert torch.equal(network(INPUTS)[:4], network(torch.cat([INPUTS[:4], INPUTS[:4]]))[:4])


def test_what_stands_at_padding_changes_nothing(network):
    """Neither a feature of the padding token nor a gradient goes through it."""
    network.eval()
    before = network(INPUTS)
    table = next(module for module in network.modules() if isinstance(module, nn.Embedding))
    used = torch.cat([network.tokens(INPUTS)[0][network.tokens(INPUTS)[1]]]).unique()
    assert 0 not in used
    with torch.no_grad():
        table.weight[0] = 1e3
    assert torch.equal(network(INPUTS), before)


def test_states_are_0_at_padding_and_the_mask_can_be_read(network):
    if not hasattr(network, "layers"):
        pytest.skip("transformers leaves what it likes there")
    paths = [*network.layers.stages, network.layers.mask]
    found = side(network, None, INPUTS[:2])
    from kdexp.features import Reader

    outputs = Reader(network.eval(), paths)(INPUTS)
    mask = outputs.features["tokens.mask"]
    assert mask.shape == (len(TEXTS), 12)
    assert mask.sum(1).tolist() == network.tokens(INPUTS)[1].sum(1).tolist()
    for stage in network.layers.stages:
        states = outputs.features[stage]
        assert states.shape == (len(TEXTS), 12, found.shapes[stage][2])
        assert not states[mask == 0].any()
        assert states[mask == 1].abs().sum(1).all()


def test_a_text_without_a_token_has_finite_logits(network):
    for mode in (True, False):
        assert network.train(mode)(torch.zeros(2, 9)).isfinite().all()
        assert network.train(mode)(code_points([" ", "\0"])).isfinite().all()


def test_its_vocabulary_goes_with_its_weights(network, folder):
    other = copy.deepcopy(network)
    other.tokens.vocabulary, other.tokens._encoder = torch.zeros(0, dtype=torch.uint8), None
    for parameter in other.parameters():
        parameter.data.zero_()
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.eval()(INPUTS), network.eval()(INPUTS))


def test_its_cost_is_found_from_shapes(network):
    assert macs(network, [9]) > 0
    assert parameters(network) == sum(parameter.numel() for parameter in network.parameters())


def test_textcnn_is_its_formula():
    """Kim 2014, section 2: for each window of each text by hand."""
    torch.manual_seed(0)
    network = textcnn(3, [9], TOKENIZER, width=4, kernels=[2, 3], channels=5, **SIZES).eval()
    network.tokens.prepare(INPUTS)
    ids, mask = network.tokens(INPUTS)
    table = network.embedding.weight.detach().numpy()
    for row, logits in enumerate(network(INPUTS).detach().numpy()):
        words = table[ids[row][mask[row]]]
        pooled = []
        for _, layer in network.convolutions:
            weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
            size = weight.shape[2]
            padded = np.concatenate([words, np.zeros((size - 1, 4), np.float32)])
            windows = [padded[i : i + size] for i in range(len(words))]
            maps = [np.maximum(np.einsum("cfk,kf->c", weight, window) + bias, 0) for window in windows]
            pooled.append(np.max(maps, 0))
        own = (
            network.classifier.weight.detach().numpy() @ np.concatenate(pooled)
            + network.classifier.bias.detach().numpy()
        )
        np.testing.assert_allclose(logits, own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_textrnn_gives_what_torch_gives_for_packed_sequences(cell):
    torch.manual_seed(0)
    network = textrnn(3, [9], TOKENIZER, width=4, hidden=5, cell=cell, **SIZES).eval()
    network.tokens.prepare(INPUTS)
    kind = nn.GRU if cell == "gru" else nn.LSTM
    packed = kind(4, 5, batch_first=True, bidirectional=True)
    for name, parameter in network.blocks[0].onwards.named_parameters():
        packed.get_parameter(name).data.copy_(parameter)
    for name, parameter in network.blocks[0].backwards.named_parameters():
        packed.get_parameter(f"{name}_reverse").data.copy_(parameter)
    ids, mask = network.tokens(INPUTS)
    steps = nn.utils.rnn.pack_padded_sequence(
        network.embedding(ids), mask.sum(1), batch_first=True, enforce_sorted=False
    )
    last = packed(steps)[1]
    last = last if cell == "gru" else last[0]
    torch.testing.assert_close(network(INPUTS), network.classifier(torch.cat([last[0], last[1]], 1)))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_transformer_gives_what_torch_gives_for_its_own_layers(norm):
    torch.manual_seed(0)
    network = text_transformer(3, [9], TOKENIZER, width=8, heads=2, hidden=10, depth=2, norm=norm, **SIZES).eval()
    network.tokens.prepare(INPUTS)
    ids, mask = network.tokens(INPUTS)
    states = network.embedding(ids, mask)
    for block in network.blocks:
        layer = nn.TransformerEncoderLayer(
            8, 2, 10, activation="gelu", batch_first=True, norm_first=norm == "pre", dropout=0.0
        ).eval()
        attention = block.attention
        parts = (attention.query, attention.key, attention.value)
        layer.self_attn.in_proj_weight.data = torch.cat([part.weight for part in parts])
        layer.self_attn.in_proj_bias.data = torch.cat([part.bias for part in parts])
        for own, theirs in (
            (attention.out, layer.self_attn.out_proj), (block.mlp[0], layer.linear1), (block.mlp[2], layer.linear2),
            (block.norm1, layer.norm1), (block.norm2, layer.norm2),
        ):  # fmt: skip
            theirs.load_state_dict(own.state_dict())
        with torch.no_grad():
            states = torch.stack(
                [
                    torch.cat([layer(one[None, on])[0], torch.zeros(int((~on).sum()), 8)])
                    for one, on in zip(states, mask, strict=True)
                ]
            )
    means = torch.stack([network.norm(one[on]).mean(0) for one, on in zip(states, mask, strict=True)])
    torch.testing.assert_close(network(INPUTS), network.classifier(means), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (textcnn, {"kernels": [0]}, r"kernels must be sizes of at least 1, got \[0\]"),
        (
            textcnn,
            {"input_shape": [3, 4, 4]},
            r"textcnn takes texts: input_shape must be \(characters\), got \[3, 4, 4\]",
        ),
        (textcnn, {"vocab_size": 2}, "vocab_size must be at least 3, got 2"),
        (textcnn, {"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        (textcnn, {"max_tokens": 2.5}, "max_tokens must be a whole number, got 2.5"),
        (textcnn, {"channels": 0}, "channels must be at least 1, got 0"),
        (textcnn, {"width": -4}, "width must be at least 1, got -4"),
        (textrnn, {"hidden": 0}, "hidden must be at least 1, got 0"),
        (text_transformer, {"hidden": 0}, "hidden must be at least 1, got 0"),
        (textcnn, {"word_dropout": 1.0}, r"word_dropout must be in \[0, 1\), got 1.0"),
        (
            textcnn,
            {"tokenizer": {"kind": "letters"}},
            "tokenizer.kind must be one of words, bpe, wordpiece, got letters",
        ),
        (textrnn, {"cell": "cnn"}, "cell of rnn must be gru or lstm, got cnn"),
        (textrnn, {"layers": 0}, "layers must be at least 1, got 0"),
        (text_transformer, {"heads": 3}, "heads must divide width=128, got 3"),
        (text_transformer, {"norm": "no"}, "norm must be pre or post, got no"),
        (text_transformer, {"depth": 0}, "depth must be at least 1, got 0"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(make, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(**{"num_classes": 3, "input_shape": [9], "tokenizer": TOKENIZER, **settings})


def renamed(folder, tmp_path):
    copy_of = tmp_path / "copy"
    copy_of.mkdir()
    for file in folder.iterdir():
        (copy_of / file.name).write_bytes(file.read_bytes())
    return copy_of


def test_a_folder_that_is_not_to_be_read_is_refused_in_one_line(folder, tmp_path):
    own = renamed(folder, tmp_path)
    config = own / "config.json"
    cases = [
        (
            lambda: hf_text(5, [9], "bert-base-uncased"),
            r"folder must be a local folder \(nothing is fetched by name\), got bert.*",
        ),
        (lambda: hf_text(4, [9], str(own), max_tokens=12), "folder must hold a classifier of 4 labels, got 5 in .*"),
        (
            lambda: hf_text(5, [9], str(own)),
            "max_tokens must be at most 16, the positions of the network in .*, got 128",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=f"^{message}$"):
            call()
    config.write_text(config.read_text().replace("{", '{"auto_map": {"AutoModel": "mine.Mine"},', 1))
    with pytest.raises(ValueError, match=r"^folder must have a config.json of transformers' own, got .*auto_map.*$"):
        hf_text(5, [9], str(own), max_tokens=12)
    (own / "model.safetensors").rename(own / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"^folder must have its weights in model.safetensors, got pytorch_model.bin, a "
    ):
        hf_text(5, [9], str(own), max_tokens=12)
    (own / "tokenizer.json").unlink()
    with pytest.raises(
        ValueError, match=r"^folder must have config.json, tokenizer.json, got .* without tokenizer.json$"
    ):
        hf_text(5, [9], str(own), max_tokens=12)


def test_roberta_has_fewer_positions_than_its_table(folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    own = renamed(folder, tmp_path)
    sizes = {
        "vocab_size": 60,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    config = transformers.RobertaConfig(max_position_embeddings=14, pad_token_id=1, num_labels=5, **sizes)
    transformers.RobertaForSequenceClassification(config).save_pretrained(own)
    with pytest.raises(ValueError, match=r"^max_tokens must be at most 12, .*, got 13$"):
        hf_text(5, [9], str(own), max_tokens=13)
    assert hf_text(5, [9], str(own), max_tokens=12).eval()(INPUTS).isfinite().all()


def test_without_pretrained_weights_the_folder_gives_the_architecture_alone(folder):
    first, second = (hf_text(5, [9], str(folder), pretrained=False, max_tokens=12) for _ in range(2))
    assert not len(first.tokens.vocabulary)
    for network in (first, second):
        network.tokens.prepare(INPUTS)
    assert not torch.equal(first.eval()(INPUTS), second.eval()(INPUTS))


def test_a_folders_network_is_what_transformers_makes_of_it(folder):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    network = hf_text(5, [9], str(folder), max_tokens=12).eval()
    theirs = transformers.BertForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(12)
    for text, logits in zip(TEXTS, network(INPUTS), strict=True):
        ids = torch.tensor([tokenizer.encode(text).ids])
        torch.testing.assert_close(theirs(ids).logits[0], logits)
