import matplotlib
import pytest
import torch
from matplotlib.image import imread

from kdexp.metrics.roc_and_confusion import RocAndConfusion, RocAndConfusionMetric
from kdexp.report.png_figures import confusion, roc, training_curves

pytestmark = pytest.mark.pixels


def make_curves(kind, classes, target=None):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 1 if kind == "binary" else classes, generator=generator)
    if target is None:
        size = (400, classes) if kind == "multilabel" else (400,)
        target = torch.randint(0, 2 if kind == "multilabel" else classes, size, generator=generator)
    curves = RocAndConfusionMetric(kind, logits.shape[1])
    curves.update(logits, target.float() if kind == "multilabel" else target)
    return curves.compute()


def texts(monkeypatch, draw):
    """All that is written in a figure."""
    found = []

    def save(figure, path):
        found.extend(text.get_text() for text in figure.findobj(matplotlib.text.Text))

    for module in (roc, confusion, training_curves):
        monkeypatch.setattr(module, "save", save)
    draw()
    return found


@pytest.mark.parametrize(("kind", "classes"), [("binary", 2), ("multiclass", 10), ("multiclass", 100)])
def test_roc_and_confusion_are_pngs_of_sensible_size(tmp_path, kind, classes):
    curves, names = make_curves(kind, classes), [f"class {i}" for i in range(classes)]
    roc.roc(curves, names, tmp_path / "figures" / "roc.png")
    confusion.confusion(curves, names, tmp_path / "figures" / "confusion.png")
    for path in (tmp_path / "figures").iterdir():  # and nothing else is left there
        height, width, _ = imread(path).shape
        assert path.name in ("roc.png", "confusion.png")
        assert 500 < height < 2000
        assert 500 < width < 2000


def test_classes_are_named_up_to_ten_and_not_among_a_hundred(monkeypatch, tmp_path):
    for classes, named in ((10, True), (100, False)):
        curves, names = make_curves("multiclass", classes), [f"animal {i}" for i in range(classes)]
        for draw in (roc.roc, confusion.confusion):
            written = texts(monkeypatch, lambda draw=draw, c=curves, n=names: draw(c, n, tmp_path / "x.png"))
            assert any(text.startswith("animal 7") for text in written) == named
            assert len(written) < 250


def test_the_mean_is_drawn_where_there_are_several_curves(monkeypatch, tmp_path):
    for kind, classes, several in (("multiclass", 100, True), ("binary", 2, False)):
        curves, names = make_curves(kind, classes), [str(i) for i in range(classes)]
        written = texts(monkeypatch, lambda c=curves, n=names: roc.roc(c, n, tmp_path / "x.png"))
        assert ("ROC, one class against the rest" in written) == several
        assert any(text.startswith("mean of 100") for text in written) == several


def test_confusion_counts_are_written_in_their_cells(monkeypatch, tmp_path):
    target = torch.tensor([0] * 130 + [1] * 270)
    curves = make_curves("binary", 2, target)
    written = texts(monkeypatch, lambda: confusion.confusion(curves, ["no", "yes"], tmp_path / "x.png"))
    counts = [count for row in curves.confusion for count in row]
    assert [text for text in written if text in map(str, counts)] == list(map(str, counts))
    assert f"{counts[0] + counts[3]} of 400 correct" in written


def test_multilabel_data_get_no_confusion_matrix(tmp_path):
    confusion.confusion(make_curves("multilabel", 4), list("abcd"), tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_a_roc_without_any_curve_says_so(monkeypatch, tmp_path):
    curves = make_curves("binary", 2, torch.zeros(400, dtype=torch.int64))
    written = texts(monkeypatch, lambda: roc.roc(curves, ["no", "yes"], tmp_path / "x.png"))
    assert "no class has both positive and negative samples" in written


def test_training_curves_show_a_schedule_only_where_there_is_one(monkeypatch, tmp_path):
    rows = [
        {
            "epoch": e,
            "train/loss": 3 - e,
            "val/loss": 3.0,
            "train/acc": 0.5,
            "train/alpha": 0.1,
            "train/temperature": 8 - e,
        }
        for e in range(3)
    ]
    written = texts(monkeypatch, lambda: training_curves.training_curves(rows, tmp_path / "x.png"))
    assert {"loss", "accuracy", "temperature", "train", "val"} <= set(written)
    assert "alpha" not in written


def test_a_run_of_one_epoch_without_validation_is_drawn(tmp_path):
    training_curves.training_curves([{"epoch": 0, "train/loss": 1.0}], tmp_path / "x.png")
    assert imread(tmp_path / "x.png").std() > 0


@pytest.mark.parametrize("classes", [["cat", "dog"], ["0", "1", "2"], [str(number) for number in range(10)]])
def test_nothing_of_a_confusion_matrix_is_cut_off(tmp_path, classes):
    counts = [[50 if row == column else 1 for column in range(len(classes))] for row in range(len(classes))]
    confusion.confusion(RocAndConfusion({}, {}, None, None, counts), classes, tmp_path / "confusion.png")
    drawn = imread(tmp_path / "confusion.png")[..., :3]
    assert all(edge.min() == 1 for edge in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]))
