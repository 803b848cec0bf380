"""Weights from files for networks that are built."""

import logging
from pathlib import Path

from torch import nn

from kdexp import run_folder
from kdexp.config.require import Values
from kdexp.models.benchmark_names import BENCHMARK_NAMES
from kdexp.weights import load_weights

log = logging.getLogger(__name__)


def with_weights(network: nn.Module, weights: Path, setting: str) -> nn.Module:
    """The network with the weights of a finished run.

    Args:
        network: of the run's architecture.
        weights: its student.safetensors.
        setting: the setting that named it, for messages.
    """
    load_weights(network, run_folder.verified(weights, setting), setting)
    return network


def as_teacher(network: nn.Module, member: Values, weights: Path, setting: str) -> nn.Module:
    """The network of a teacher with its weights, by the names that its settings and published teachers have for them.

    Args:
        network: the teacher's.
        member: its configuration, in plain values.
        weights: the file.
        setting: the teacher's, for messages.
    """
    words = load_weights(
        network,
        run_folder.verified(weights, f"{setting}.weights"),
        f"{setting}.weights",
        key=member.get("weights_key"),
        rename=member.get("rename"),
        dialects=BENCHMARK_NAMES,
    )
    if words:
        log.info("%s.weights %s: %s", setting, weights, words)
    return network
