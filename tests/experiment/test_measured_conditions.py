"""What older kdexps measured is read under today's names."""

import json

import pytest
import torch
from safetensors.torch import save_file

from kdexp.experiment.measured_conditions import keep_condition, read_condition
from kdexp.robustness.grid import Measured

OLD_TO_NEW = {
    "ace": "ece_adaptive",
    "ace_scaled": "ece_adaptive_scaled",
    "largest_gap": "max_calibration_error",
    "largest_gap_scaled": "max_calibration_error_scaled",
    "probe": "linear_probe_acc",
    "knn": "knn_acc",
    "acc": "acc",
    "nll_scaled": "nll_scaled",
}


@pytest.mark.parametrize("is_old", [True, False])
def test_what_was_measured_has_the_names_of_today(is_old, tmp_path):
    file = tmp_path / "key.safetensors"
    values = {name: float(number) for number, name in enumerate(OLD_TO_NEW)}
    samples = {name: torch.tensor([value]) for name, value in values.items()}
    if is_old:
        save_file(samples, file, {"values": json.dumps(values), "notes": '["a note"]'})
    else:  # names of an axis of one's own, perhaps
        keep_condition(file, Measured(values, samples, ["a note"]))
    found = read_condition(file)
    assert found is not None
    assert found.values == {OLD_TO_NEW[name] if is_old else name: value for name, value in values.items()}
    assert {name: float(sample) for name, sample in found.samples.items()} == found.values
    assert found.notes == ["a note"]
