"""The student of a finished run."""

from pathlib import Path

from torch import nn

from kdexp import run_folder
from kdexp.experiment.experiment import Experiment
from kdexp.weights import load_weights


def trained_student(experiment: Experiment, weights: Path, setting: str) -> nn.Module:
    """The student of a finished run.

    Args:
        experiment: of the run.
        weights: its student.safetensors.
        setting: the setting that named it, for messages.

    Raises:
        ValueError: the weights do not fit.
        FileNotFoundError: the weights are gone.
    """
    network = experiment.new_student()
    load_weights(network, run_folder.verified(weights, setting), setting)
    return network
