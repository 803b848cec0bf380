"""``kdexp-export``, as a user types it."""

import json

import pytest


def test_a_run_is_exported_in_8_bits_and_its_file_holds_up(command, tmp_path):
    command("kdexp-train", "quick=true", "tracking=none", "student=cnn_small", "output_dir=run", "trainer.max_epochs=1")
    done = command("kdexp-export", "run=run", "quantize=int8_static", "robustness=quick", "robustness.samples=32")
    assert "onnx int8_static" in done.stdout
    assert "exported - student, 95 %" in done.stdout
    folder = tmp_path / "run" / "export" / "onnx-int8_static"
    content = json.loads((folder / "export.json").read_text())
    report = json.loads((folder / "robustness.json").read_text())
    assert list(report["models"]) == ["teacher", "control", "student", "exported"]
    assert report["models"]["exported"]["digest"] == content["sha256"]
    assert "attacks" not in report["metrics"]
    assert "attacks left out: a file has no gradients (kdexp-eval attacks the student)" in report["notes"]
    clean = report["metrics"]["clean"]["acc"]
    assert clean["export_difference"]["value"] == pytest.approx(clean["exported"] - clean["student"])
    gains = [row["model"] for row in report["conditions"] if "acc_gain" in row]
    assert set(gains) == {"student"}
    assert not (tmp_path / "run" / "robustness.json").exists()


def test_a_student_is_fine_tuned_with_its_teacher_in_8_bits(command, tmp_path):
    command("kdexp-train", "quick=true", "tracking=none", "student=cnn", "output_dir=run", "trainer.max_epochs=1")
    done = command("kdexp-export", "run=run", "quantize=qat", "qat.epochs=1", "out=out")
    assert "qat: epoch 1 of 1, loss " in done.stderr + done.stdout
    content = json.loads((tmp_path / "out" / "export.json").read_text())
    (_, floats, eight_bits) = content["rows"]
    assert eight_bits["bytes"] < floats["bytes"]
    assert content["qat"] == {"epochs": 1, "learning_rate": 1e-4}
    (tmp_path / "empty").mkdir()
    alone = command("kdexp-export", "run=run", "quantize=qat", "out=out2", "store_dir=empty", rc=2)
    assert "store_dir must hold the run's teacher for quantize=qat, got " in alone.stderr
    assert not (tmp_path / "out2").exists()


@pytest.mark.quick
def test_what_is_wrong_is_one_line(command, tmp_path):
    for typed, message in {
        (): "error: run must be the folder of a finished run, got nothing\n",
        ("run=nowhere",): "error: run must be the folder of a finished run, or of a sweep that has one, got nowhere\n",
        ("run=nowhere", "quantize=int3"): "error: quantize must be one of none, fp16, int8_static, int8_dynamic, qat, "
        "got int3\n",
    }.items():
        assert command("kdexp-export", *typed, rc=2).stderr.endswith(message)
    assert not list(tmp_path.iterdir())
    shown = command("kdexp-export", "--help").stdout
    assert "quantize (none, int8_static, int8_dynamic, fp16, qat)" in shown
