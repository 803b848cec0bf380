"""When a file is not the network, and which settings there are."""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdexp.cli.export import export
from kdexp.config.compose import compose, plain
from kdexp.contracts import Batch
from kdexp.export.measured import difference
from kdexp.export.parity import Parity
from kdexp.export.robustness import without_gradients
from kdexp.export.settings import FORMATS, TOLERANCES, check_out, of
from kdexp.export.writing import check, format_of
from kdexp.robustness.bootstrap import Bootstrap
from kdexp.robustness.grid import Measured
from kdexp.tasks.classification import Classification
from kdexp.tasks.generation import Generation


def compared(*pairs):
    parity = Parity()
    for own, expected in pairs:
        parity(Batch(torch.empty(0), torch.empty(0)), torch.tensor(own), torch.tensor(expected))
    return parity


def test_the_error_is_relative_to_the_networks_outputs_by_hand():
    parity = compared(([[1.0, 2.0]], [[1.0, 1.0]]), ([[3.0, 0.0]], [[3.0, -2.0]]))
    assert parity.error == pytest.approx(math.sqrt(1 + 4) / math.sqrt(1 + 1 + 9 + 4))
    assert (parity.largest, parity.samples) == (2.0, 2)
    parity.check(0.6, "it")


@pytest.mark.parametrize(
    "pairs",
    [
        [([[1.0]], [[2.0]])],
        [([[math.nan]], [[2.0]]), ([[2.0]], [[2.0]])],
        [([[math.inf]], [[2.0]])],
        [([[1.0]], [[0.0]])],
    ],
    ids=["far off", "NaN", "infinite", "of nothing"],
)
def test_what_is_not_the_network_is_one_line(pairs):
    with pytest.raises(ValueError, match=r"^tolerance must be at least the error of the outputs, got 0.25") as caught:
        compared(*pairs).check(0.25, "format=onnx")
    assert "\n" not in str(caught.value)


def test_two_networks_of_zeros_are_the_same():
    compared(([[0.0]], [[0.0]])).check(1e-9, "it")


def test_the_difference_to_the_student_is_that_of_the_same_samples():
    right = torch.tensor([1.0, 0.0] * 50)
    found = difference(Classification(2), right.flip(0), right)
    assert found["value"] == 0
    assert found["low"] < 0 < found["high"]
    twin = difference(Classification(2), right, right)
    assert twin == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_an_entry_of_a_report_has_both_differences():
    right = {role: torch.zeros(100) for role in ("teacher", "control", "student", "exported")}
    for count, role in ((60, "control"), (90, "student"), (80, "exported")):
        right[role][:count] = 1
    clean = {role: Measured({}, {"right": each}) for role, each in right.items()}
    bootstrap = Bootstrap(clean, Classification(2), seed=0, n_resamples=200, confidence_level=0.95)
    entry = bootstrap.entry(bootstrap.clean())
    assert list(entry) == ["teacher", "control", "student", "exported", "difference", "export_difference"]
    assert entry["difference"]["value"] == pytest.approx(0.3)
    assert entry["export_difference"]["value"] == pytest.approx(-0.1)
    assert entry["export_difference"]["low"] < -0.1 < entry["export_difference"]["high"] < 0


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("format=tflite", "format must be one of executorch, exported_program, onnx, got tflite"),
        ("quantize=int4", "quantize must be one of none, fp16, int8_static, int8_dynamic, qat, got int4"),
        ("preprocessing=2", "preprocessing must be true or false, got 2"),
        ("threads=0", "threads must be a whole number of at least 1, got 0"),
        ("calibration.samples=many", "calibration.samples must be a whole number of at least 1, got many"),
        ("calibration.seed=null", "calibration.seed must be a whole number, got None"),
        ("qat.epochs=0.5", "qat.epochs must be a whole number of at least 1, got 0.5"),
        ("qat.learning_rate=-1", "qat.learning_rate must be > 0, got -1"),
        ("tolerance=0", "tolerance must be null or > 0, got 0"),
        (
            "format=executorch quantize=qat",
            "quantize must be one of none, fp16 with format=executorch, got qat",
        ),
        (
            "format=exported_program quantize=int8_dynamic",
            "quantize must be one of none, fp16, int8_static, qat with format=exported_program, got int8_dynamic",
        ),
    ],
)
def test_a_wrong_setting_is_one_line(typed, message):
    with pytest.raises(ValueError, match=r"^\w") as caught:
        check(of(plain(compose(typed.split(), "export"))))
    assert str(caught.value) == message


def test_a_file_of_formats_is_a_format():
    for name in FORMATS:
        found = format_of(name)
        assert set(found.QUANTIZE) <= set(TOLERANCES)
        assert found.SUFFIX.startswith(".")
        assert callable(found.write)
        assert callable(found.load)
    assert "onnx" in FORMATS


def test_the_tolerance_is_that_of_the_bits_unless_it_is_given():
    assert of(plain(compose([], "export"))).largest_error == 1e-3
    assert of(plain(compose(["quantize=int8_static"], "export"))).largest_error == 0.25
    assert of(plain(compose(["quantize=int8_static", "tolerance=0.5"], "export"))).largest_error == 0.5


def test_a_file_is_not_attacked():
    settings, notes = without_gradients(plain(compose(["robustness=quick"], "export")).get("robustness"))
    assert "attacks" not in settings
    assert {"corruptions", "calibration", "samples"} <= set(settings)
    assert notes == ["attacks left out: a file has no gradients (kdexp-eval attacks the student)"]
    with pytest.raises(ValueError, match=r"^robustness must have an axis that needs no gradients"):
        without_gradients(plain(compose(["robustness=attacks"], "export"))["robustness"])


def test_an_export_takes_the_place_of_no_other_file(tmp_path):
    check_out(tmp_path / "new")
    check_out(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    for place in (tmp_path, tmp_path / "README.md"):
        with pytest.raises(ValueError, match=r"^out must be a new or empty folder, or one with the export.json of an "):
            check_out(place)
    (tmp_path / "export.json").write_text("{}")
    check_out(tmp_path)


def test_what_cannot_be_measured_is_refused_before_a_file_is_written(monkeypatch, tmp_path):
    values = plain(compose(["run=r", "robustness=quick"], "export"))
    data = SimpleNamespace(task=Generation(4))
    experiment = SimpleNamespace(config=None, data=data, values={"robustness": values["robustness"]})
    finished = SimpleNamespace(
        folder=tmp_path, building=nullcontext, warn_of_other_data=list, student=nn.Identity, device="cpu"
    )
    finished.experiment = experiment
    monkeypatch.setattr("kdexp.cli.export.run_at", lambda *_: tmp_path)
    monkeypatch.setattr("kdexp.cli.export.FinishedRun", lambda *_, **__: finished)
    monkeypatch.setattr("kdexp.export.exporting.Exporter", lambda *_: None)  # there is nothing to export with
    with pytest.raises(ValueError, match=r"^robustness must be null for task=generation, got "):
        export(values)
