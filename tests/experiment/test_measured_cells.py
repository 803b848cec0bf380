"""Measured cells of older kdexps are read under today's names."""

import torch

from kdexp.experiment.robustness_evaluator import keep_cell, read_cell
from kdexp.robustness.grid import Measured

OLD_TO_NEW = {
    "ace": "ece_adaptive",
    "ace_scaled": "ece_adaptive_scaled",
    "largest_gap": "max_calibration_error",
    "largest_gap_scaled": "max_calibration_error_scaled",
    "acc": "acc",
    "nll_scaled": "nll_scaled",
}


def test_a_cell_has_the_names_of_today(tmp_path):
    values = {name: float(number) for number, name in enumerate(OLD_TO_NEW)}
    samples = {name: torch.tensor([value]) for name, value in values.items()}
    keep_cell(tmp_path / "cell.safetensors", Measured(values, samples, ["a note"]))
    found = read_cell(tmp_path / "cell.safetensors")
    assert found is not None
    assert found.values == {OLD_TO_NEW[name]: value for name, value in values.items()}
    assert {name: float(sample) for name, sample in found.samples.items()} == found.values
    assert found.notes == ["a note"]
