import shutil

import pytest
from conditions import SHARES, compared, few_data
from matplotlib.image import imread

from kdexp.report.artifacts import write
from kdexp.report.condition_curves import condition_curves


def test_a_curve_has_a_point_for_each_level_with_its_control_and_its_teacher(tmp_path, write_run):
    few_data(tmp_path, write_run, seeds=2)
    (curve,) = condition_curves(compared(tmp_path))
    (student,) = curve.students
    assert (curve.axis, curve.where, student.label) == ("dataset.train_fraction", "", "distilled")
    assert list(student.groups) == list(curve.control.groups) == list(SHARES)
    assert curve.teacher == dict.fromkeys(SHARES, pytest.approx(0.99))
    assert student.gains([0.1, 0.5]) == {0: pytest.approx([0.1, 0.05]), 1: pytest.approx([0.101, 0.051])}
    assert student.mean_gain([0.1, 0.5]).mean == pytest.approx(0.0755)
    shutil.rmtree(tmp_path / "kd-0.5-1")
    ((student,),) = (curve.students for curve in condition_curves(compared(tmp_path)))
    assert list(student.gains([0.1, 0.5])) == [0], "a seed counts where it has all levels"


def test_a_sweep_of_two_grids_is_two_curves_that_meet(tmp_path, write_run):
    for seed in (0, 1):
        for share, rate in ((0.1, 0.0), (1.0, 0.0), (1.0, 0.4)):
            data = {"train_fraction": share, "label_noise": rate}
            write_run(tmp_path / f"control-{share}-{rate}-{seed}", alpha=1.0, seed=seed, data=data)
            for loss in ("kd", "dkd"):
                write_run(tmp_path / f"{loss}-{share}-{rate}-{seed}", loss=loss, seed=seed, data=data)
    found = {curve.axis: curve for curve in condition_curves(compared(tmp_path))}
    assert {axis: list(curve.control.groups) for axis, curve in found.items()} == {
        "dataset.train_fraction": [0.1, 1.0],
        "dataset.label_noise": [0.0, 0.4],
    }
    assert sorted(line.label for line in found["dataset.label_noise"].students) == ["loss=dkd", "loss=kd"]
    assert all(curve.where == "" for curve in found.values())


@pytest.mark.pixels
def test_data_of_two_kinds_have_a_curve_each(tmp_path, write_run):
    for kind in ("symmetric", "pairflip"):
        for rate in (0.0, 0.4):
            data = {"label_noise_kind": kind, "label_noise": rate}
            write_run(tmp_path / f"control-{kind}-{rate}", alpha=1.0, data=data)
            write_run(tmp_path / f"kd-{kind}-{rate}", data=data)
    where = sorted(curve.where for curve in condition_curves(compared(tmp_path)))
    assert where == ["dataset.label_noise_kind=pairflip", "dataset.label_noise_kind=symmetric"]
    written = write(compared(tmp_path), tmp_path, source=[])
    pictures = [path for _, path in written if path.suffix == ".png"]
    assert sorted(path.name for path in pictures) == [
        "curve-label_noise-dataset.label_noise_kind-pairflip.png",
        "curve-label_noise-dataset.label_noise_kind-symmetric.png",
    ]
    assert all(imread(path).std() > 0.01 for path in pictures)
