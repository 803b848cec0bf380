"""What scripts/method_table.py runs, goes on with, and makes of what there is."""

import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.kdexp.search import distribution_of
from kdexp.config.compose import compose

pytest.importorskip("optuna")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from method_table import Worker, plan  # noqa: E402
from table_cells import PROBLEMS, TRIALS, Cell, Method, finals, methods, point_of, trials  # noqa: E402
from table_figure import drawn  # noqa: E402
from table_page import page  # noqa: E402

from kdexp.report.colors import GRAY, ORANGE  # noqa: E402
from kdexp.sweeps.optuna_study import ends  # noqa: E402

DIGITS = PROBLEMS["digits"]
CONTROL, KD = methods(DIGITS)[:2]
POINT = {"optimizer.lr": "0.002", "optimizer.weight_decay": "0.01", "alpha": "0.3", "temperature": "2"}


def record(cell: Cell, point: dict[str, str], acc: float, status: str = "completed") -> dict[str, object]:
    measured = {"acc": acc, "nll": 1 - acc}
    is_done = status == "completed"
    return {
        "settings": cell.settings(point),
        "space": dict(cell.method.space),
        "point": point,
        "status": status,
        "val": measured if is_done else None,
        "test": {"best": measured, "last": measured} if is_done and cell.trial is None else None,
        "teacher_acc": 0.97 if cell.trial is None else None,
        "val_acc_by_epoch": [acc] if cell.trial is not None else None,
        "seconds": 36.0,
        "kdexp": "0.1.0+0",
        "torch": "2",
        "cpu": "x86_64",
    }


def written(tables: Path, method: Method, accuracies: list[float], *, seeds: int = 6) -> None:
    """A method whose second trial is the best, and what its last runs reach."""
    point = {key: POINT.get(key, "1") for key in method.space}
    for cell in trials(DIGITS, method):
        own = point | {"optimizer.lr": "0.003"} if cell.trial == 1 else point
        status = "pruned" if cell.trial == TRIALS - 1 else "completed"
        cell.write(tables, record(cell, own, 0.9 if cell.trial == 1 else 0.8, status))
    for cell, acc in list(zip(finals(DIGITS, method), accuracies, strict=True))[:seeds]:
        cell.write(tables, record(cell, point | {"optimizer.lr": "0.003"}, acc))


def row(text: str, name: str) -> list[str]:
    (found,) = [line for line in text.split("## Digits")[1].splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_page_of_cells_written_by_hand(tmp_path):
    written(tmp_path, CONTROL, [0.80] * 6)
    written(tmp_path, KD, [0.804, 0.801, 0.805, 0.803, 0.799, 0.806])  # evidence of a paired t test by hand
    text = page(tmp_path)
    # Differences .4 .1 .5 .3 -.1 .6: t = 2.818, p = .0372; twelve tests: .446.
    assert row(text, "kd") == [
        "kd",
        "12, 1 pruned",
        "lr=0.003 weight_decay=0.01 alpha=0.3 temperature=2",
        "90.00",
        "80.30 ± 0.26",
        "+0.30 (+0.03 to +0.57)",
        "0.037",
        "0.45",
        "not significant",
    ]
    assert row(text, "control")[1:6] == ["12, 1 pruned", "lr=0.003 weight_decay=0.01", "90.00", "80.00 ± 0.00", ""]
    assert "1 are not significantly different, 11 are missing" in text
    assert "took 0.4 hours of one core" in text  # 36 runs of 36 s
    assert "The teacher, which had all of them, has 97.00 %." in text


def test_what_is_missing_and_what_diverged_is_said(tmp_path):
    written(tmp_path, CONTROL, [0.80] * 6)
    written(tmp_path, KD, [0.804] * 6, seeds=4)
    assert row(page(tmp_path), "kd")[4:] == ["missing: 2 of 6 seeds", "", "", "", "missing"]
    *_, fifth, last = finals(DIGITS, KD)
    point = dict(point_of(DIGITS, KD, tmp_path) or {})
    fifth.write(tmp_path, record(fifth, point, 0.9))
    last.write(tmp_path, record(last, point, 0.0, "diverged"))
    shown = row(page(tmp_path), "kd")
    assert shown[4] == "82.32 ± 4.29 (1 diverged)"
    assert shown[5].startswith("+2.32")


def test_a_method_below_the_control_stands_there(tmp_path):
    written(tmp_path, CONTROL, [0.80, 0.81, 0.82, 0.80, 0.81, 0.82])
    written(tmp_path, KD, [0.70, 0.71, 0.72, 0.70, 0.71, 0.721])
    assert row(page(tmp_path), "kd")[-1] == "worse"
    assert "0 stand above the tuned control, 1 below" in page(tmp_path)


def test_the_figure_has_the_methods_that_are_whole_from_the_best_to_the_worst(tmp_path):
    written(tmp_path, CONTROL, [0.80] * 6)
    written(tmp_path, KD, [0.804, 0.801, 0.805, 0.803, 0.799, 0.806])
    dkd, nkd = methods(DIGITS)[2:4]
    written(tmp_path, dkd, [0.70, 0.71, 0.72, 0.70, 0.71, 0.721])
    written(tmp_path, nkd, [0.8] * 6, seeds=5)
    of_fashion, of_digits = drawn(tmp_path).axes
    assert not of_fashion.containers
    assert [text.get_text() for text in of_digits.get_yticklabels()] == ["kd", "dkd"]
    points = [container.lines[0] for container in of_digits.containers]
    assert [point.get_xdata()[0] for point in points] == pytest.approx([0.3, -8.98333], rel=1e-4)
    assert [point.get_color() for point in points] == [GRAY, ORANGE]
    (bar,) = of_digits.containers[0].lines[2]
    assert bar.get_segments()[0][:, 0] == pytest.approx([0.026, 0.574], abs=1e-3), "of a paired t test by hand"


def test_what_is_there_is_not_run_again(tmp_path, monkeypatch):
    written(tmp_path, KD, [0.8] * 6, seeds=5)
    ran = []
    monkeypatch.setattr(Worker, "_run", lambda self, cell, point, pruner=None: ran.append((cell.name, point)))
    Worker(tmp_path, tmp_path, time.time() + 60).work(DIGITS, KD)
    assert ran == [("seed_6", POINT | {"optimizer.lr": "0.003"})]
    ran.clear()
    Worker(tmp_path, tmp_path, time.time() - 1).work(DIGITS, KD)
    assert not ran


def test_a_search_goes_on_elsewhere_with_the_points_that_it_would_have_tried(tmp_path, monkeypatch):
    tried = {}

    monkeypatch.setattr("method_table.TRIALS", 4)
    monkeypatch.setattr("table_cells.TRIALS", 4)

    def run(self, cell, point, pruner=None):
        if pruner is not None:
            tried.setdefault(cell.trial, []).append(point)
        acc = 0.5 + float(point["alpha"]) / 10
        cell.write(self.tables, record(cell, dict(point), acc))
        return cell.read(self.tables)

    monkeypatch.setattr(Worker, "_run", run)
    Worker(tmp_path, tmp_path / "tables", time.time() + 60).work(DIGITS, KD)
    assert [len(points) for points in tried.values()] == [1] * 4
    for cell in trials(DIGITS, KD)[2:]:
        cell.file(tmp_path / "tables").unlink()
    Worker(tmp_path, tmp_path / "tables", time.time() + 60).work(DIGITS, KD)
    assert [len(points) for points in tried.values()] == [1, 1, 2, 2]
    assert all(points[0] == points[-1] for points in tried.values())
    chosen = point_of(DIGITS, KD, tmp_path / "tables")
    assert chosen == max((points[0] for points in tried.values()), key=lambda point: float(point["alpha"]))


def test_a_cell_of_other_settings_or_ranges_is_none(tmp_path):
    cell = finals(DIGITS, KD)[0]
    cell.write(tmp_path, record(cell, POINT, 0.8) | {"settings": [*cell.settings(POINT)[1:]]})
    assert cell.read(tmp_path) is None
    cell.write(tmp_path, record(cell, POINT, 0.8) | {"space": {}})
    assert cell.read(tmp_path) is None
    assert f"{0:3} of {TRIALS + 6:3}" in plan([DIGITS], tmp_path)


def test_every_method_of_the_packages_is_a_row():
    names = [method.name for method in methods(PROBLEMS["fashion_mnist"])]
    assert len(names) == len(set(names)) + 1  # the control of each table
    assert [method.name for method in methods(DIGITS)] == names[:13]


@pytest.mark.parametrize("name", ["control", "kd", "dkd", "nkd", "dist", "kd_ls", "crd", "reviewkd"])
def test_the_ranges_compose_at_their_ends(name):
    (method,) = [method for method in methods(DIGITS) if method.name == name]
    parse = OverridesParser.create().parse_override
    values = {key: ends(distribution_of(parse(f"{key}={words}"))) for key, words in method.space.items()}
    settings = Cell(DIGITS, method, 0, 0).settings({key: found[-1] for key, found in values.items()})
    config = compose(settings, output_dir="unused")
    assert config.optimizer.lr == 0.03
    assert config.trainer.max_steps == 1500
