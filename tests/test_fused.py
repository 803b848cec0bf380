"""Jobs that are trained in step in one process come to what each comes to alone, to the bit."""

import json

import pytest

from kdexp.config import compose, fusion_key, plain
from kdexp.distiller import Distiller
from kdexp.fused import run_together
from kdexp.teacher import Teacher
from kdexp.train import run

SMOKE = ["experiment=smoke", "tracking=none", "trainer.max_epochs=2", "student.width=2"]


def outcome(folder):
    results = json.loads((folder / "results.json").read_text())
    table = (folder / "metrics.csv").read_text()
    return results["status"], (folder / "student.safetensors").read_bytes(), results["metrics"], table


def together(folder, store, cells, settings=SMOKE):
    """Run cells in step; what each raised."""
    raised = {}

    def job(number, parts):
        try:
            run(compose([*settings, *cells[number]], output_dir=folder / str(number), store_dir=store), parts)
        except Exception as error:
            raised[number] = error

    run_together([lambda parts, number=number: job(number, parts) for number in range(len(cells))])
    return raised


@pytest.fixture
def asked(monkeypatch):
    """How many samples the teacher was asked about."""
    samples, answers = [], Teacher.answers

    def counted(self, inputs):
        samples.append(len(inputs))
        return answers(self, inputs)

    monkeypatch.setattr(Teacher, "answers", counted)
    return samples


@pytest.mark.parametrize(
    ("settings", "cells"),
    [
        (
            ["augment=shift", "student.dropout=0.2"],
            [["alpha=0.1"], ["temperature=2"], ["alpha=1"], ["seed=1"], ["loss=dkd", "optimizer=sgd"]],
        ),
        (["teacher.cache=views:2"], [["alpha=0.1"], ["seed=1"], ["alpha=0.5", "dataset.train_fraction=1"]]),
        (["feature_loss=[crd]", "student=cnn"], [["alpha=0.1"], ["feature_loss.crd.weight=2"]]),
        (["feature_loss=[simkd]", "student=cnn"], [["seed=0"], ["seed=1"]]),
    ],
    ids=["online", "kept answers", "with a memory", "with parts of the teacher"],
)
def test_each_job_comes_to_what_it_comes_to_alone(tmp_path, store, settings, cells):
    settings = [*SMOKE, *settings]
    assert len({fusion_key(plain(compose([*settings, *cell], output_dir=tmp_path))) for cell in cells}) == 1
    assert not together(tmp_path / "fused", store, cells, settings)
    for number, cell in enumerate(cells):
        run(compose([*settings, *cell], output_dir=tmp_path / "alone", store_dir=store))
        assert outcome(tmp_path / "fused" / str(number)) == outcome(tmp_path / "alone"), cell
        (tmp_path / "alone").rename(tmp_path / f"alone{number}")


def test_a_job_that_diverges_leaves_the_others_alone(tmp_path, store):
    cells = [["alpha=0.1"], ["optimizer=sgd", "optimizer.lr=1e30"], ["alpha=0.5"]]
    raised = together(tmp_path / "fused", store, cells)
    assert list(raised) == [1]
    assert json.loads((tmp_path / "fused" / "1" / "results.json").read_text())["status"] == "diverged"
    run(compose([*SMOKE, *cells[2]], output_dir=tmp_path / "alone", store_dir=store))
    assert outcome(tmp_path / "fused" / "2") == outcome(tmp_path / "alone")


class Stop(Exception):
    pass


def test_jobs_that_were_stopped_go_on_and_meet_and_the_teacher_is_asked_once_for_all(
    tmp_path, store, asked, monkeypatch
):
    longer, cells = [*SMOKE, "trainer.max_epochs=3"], [["alpha=0.1"], ["alpha=0.5"], ["temperature=2"]]
    begin = Distiller.on_train_epoch_start

    def stopped(self):
        if self.current_epoch == (1 if self.alpha == 0.5 else 2):
            raise Stop
        begin(self)

    monkeypatch.setattr(Distiller, "on_train_epoch_start", stopped)
    raised = together(tmp_path, store, cells, longer)
    assert [type(error) for error in raised.values()] == [Stop] * 3
    monkeypatch.setattr(Distiller, "on_train_epoch_start", begin)
    asked.clear()
    run_together([
        lambda parts, number=number: run(compose([f"resume={tmp_path / str(number)}"], output_dir=tmp_path), parts)
        for number in range(3)
    ])  # fmt: skip
    continued = sum(asked)
    for number, cell in enumerate(cells):
        asked.clear()
        run(compose([*longer, *cell], output_dir=tmp_path / f"alone{number}", store_dir=store))
        assert outcome(tmp_path / str(number)) == outcome(tmp_path / f"alone{number}")
    samples = json.loads((tmp_path / "0" / "results.json").read_text())["samples"]
    epoch = samples["train"] // 64 * 64
    seen = 2 * epoch + 2 * samples["val"] + samples["test"]
    assert continued == seen + 64, "the last batch once more: who was first to its end has asked about test since"
    assert sum(asked) == seen + epoch


@pytest.mark.parametrize(
    "setting",
    ["trainer=ddp_cpu", "scheme=ema", "trainer.compile=true"],
)
def test_what_cannot_be_shared_is_run_alone(tmp_path, setting):
    assert fusion_key(plain(compose([*SMOKE, setting], output_dir=tmp_path))) is None


@pytest.mark.parametrize("setting", ["dataset.batch_size=32", "teacher.cache=static", "trainer.max_epochs=3",
                                     "augment=shift", "feature_loss=[at]"])  # fmt: skip
def test_what_sees_other_data_or_another_teacher_is_of_another_group(tmp_path, setting):
    keys = [fusion_key(plain(compose([*SMOKE, *more], output_dir=tmp_path))) for more in ([], [setting])]
    assert keys[0] != keys[1]
