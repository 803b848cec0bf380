"""What goes into a file: the same outputs as the network's, behind a tokenizer, with noise given, from bytes."""

import pytest
import torch

from kdexp.export.graph import Stored, graph_of, with_preprocessing
from kdexp.models.cnn import cnn
from kdexp.models.text_transformer import text_transformer
from kdexp.models.textcnn import textcnn
from kdexp.models.vae import vae_mlp


def texts(*given, length=40):
    return torch.tensor([[*map(ord, text), *[0] * (length - len(text))] for text in given], dtype=torch.int32)


@pytest.mark.parametrize("make", [textcnn, text_transformer])
def test_a_network_of_texts_begins_behind_its_tokenizer(make):
    network = make(3, (40,), tokenizer={"kind": "words"}, vocab_size=20, max_tokens=6)
    inputs = texts("where is it", "a b c d e f g h i", "")
    network.tokens.prepare(inputs)
    graph = graph_of(network)
    (tokens,) = graph.feed(inputs)
    assert tokens.dtype == torch.int64
    assert (tokens >= 0).sum(1).tolist() == [3, 6, 1], "a text has at least one token, and at most max_tokens"
    with torch.no_grad():
        torch.testing.assert_close(graph.network(tokens), network.eval()(inputs))
    assert graph.names == ["tokens"]
    with pytest.raises(ValueError, match=r"^preprocessing must be false for texts"):
        with_preprocessing(graph, Stored([0.0], [1.0], (40,), are_bytes=False))


def test_the_noise_of_an_autoencoder_is_an_input():
    network = vae_mlp(10, (1, 4, 4), hidden=[8], latent=3).eval()
    images = torch.rand(5, 1, 4, 4)
    graph = graph_of(network)
    with torch.no_grad():
        torch.testing.assert_close(graph.network(*graph.feed(images)), network(images))
        still = graph.network(images, torch.zeros(5, 3))
    mu, z = still[:, 16:19], still[:, -3:]
    torch.testing.assert_close(z, mu)


def test_bytes_come_back_bit_by_bit_and_floats_nearly():
    network, raw = cnn(3, (2, 8, 8), width=2).eval(), torch.arange(256, dtype=torch.uint8).view(2, 2, 8, 8)
    mean, std = [0.3, 0.5], [0.21, 0.37]
    normalised = (raw / 255 - torch.tensor(mean).view(2, 1, 1)) / torch.tensor(std).view(2, 1, 1)
    graph = with_preprocessing(graph_of(network), Stored(mean, std, (2, 8, 8), are_bytes=True))
    (given,) = graph.feed(normalised)
    assert torch.equal(given, raw)
    with torch.no_grad():
        torch.testing.assert_close(graph.network(raw), network(normalised))
    (floats,) = with_preprocessing(graph_of(network), Stored(mean, std, (2, 8, 8), are_bytes=False)).feed(normalised)
    torch.testing.assert_close(floats, raw / 255)


def test_the_network_stays_as_it_is():
    network = cnn(3, (1, 8, 8), width=2)
    graph = graph_of(network)
    assert network.training
    assert not graph.network.training
    for parameter in graph.network.parameters():
        parameter.data.zero_()
    assert any(parameter.any() for parameter in network.parameters())
