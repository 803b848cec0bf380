"""Jobs that are trained in step in one process come to what each comes to alone, to the bit."""

import json
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from hydra_plugins.kdexp.launcher import BACKENDS
from kdexp.config.compose import compose, plain
from kdexp.experiment import run_figures
from kdexp.experiment.run import run
from kdexp.sweeps import memory, step_backends
from kdexp.sweeps.fusion import fusion_key
from kdexp.sweeps.shared_experiment import run_together
from kdexp.sweeps.step_backends import Stack
from kdexp.teacher.teacher import Teacher
from kdexp.training.distiller import Distiller

SMOKE = ["experiment=smoke", "tracking=none", "trainer.max_epochs=2", "student.width=2"]


def outcome(folder):
    results = json.loads((folder / "results.json").read_text())
    table = (folder / "metrics.csv").read_text()
    return results["status"], (folder / "student.safetensors").read_bytes(), results["metrics"], table


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """They take longer than all the rest."""
    monkeypatch.setattr(run_figures, "draw_run", lambda *arguments: None)


def together(folder, store, cells, settings=SMOKE, **more):
    """Run cells in step; what each raised."""
    raised = {}

    def job(number, make):
        try:
            run(compose([*settings, *cells[number]], output_dir=folder / str(number), store_dir=store), make)
        except Exception as error:
            raised[number] = error

    run_together([lambda make, number=number: job(number, make) for number in range(len(cells))], **more)
    return raised


@pytest.fixture
def asked(monkeypatch):
    """How many samples the teacher was asked about."""
    samples, answers = [], Teacher.member_outputs

    def counted(self, inputs):
        samples.append(len(inputs))
        return answers(self, inputs)

    monkeypatch.setattr(Teacher, "member_outputs", counted)
    return samples


@pytest.mark.parametrize("backend", ["loop", "streams"])  # on a CPU PyTorch's streams do nothing
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
    ids=["online", "cached teacher outputs", "with a memory", "with parts of the teacher"],
)
def test_each_job_comes_to_what_it_comes_to_alone(tmp_path, store, settings, cells, backend):
    settings = [*SMOKE, *settings]
    assert len({fusion_key(plain(compose([*settings, *cell], output_dir=tmp_path))) for cell in cells}) == 1
    assert not together(tmp_path / "fused", store, cells, settings, backend=backend)
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
        lambda make, number=number: run(compose([f"resume={tmp_path / str(number)}"], output_dir=tmp_path), make)
        for number in range(3)
    ], max_students=3)  # fmt: skip
    continued = sum(asked)
    for number, cell in enumerate(cells):
        asked.clear()
        run(compose([*longer, *cell], output_dir=tmp_path / f"alone{number}", store_dir=store))
        assert outcome(tmp_path / str(number)) == outcome(tmp_path / f"alone{number}")
    samples = json.loads((tmp_path / "0" / "results.json").read_text())["samples"]
    epoch = samples["train"] // 64 * 64
    seen = 2 * epoch + 2 * samples["val"] + samples["test"]
    assert continued == seen
    assert sum(asked) == seen + epoch


def test_the_teacher_is_asked_once_for_a_batch_of_each_order(tmp_path, store, asked):
    cells = [[f"alpha={alpha}", f"seed={seed}"] for alpha in (0.1, 0.5) for seed in (0, 1)]
    assert not together(tmp_path, store, cells)
    samples = json.loads((tmp_path / "0" / "results.json").read_text())["samples"]
    epochs = 2 * 2 * (samples["train"] // 64 * 64)  # of two orders
    assert sum(asked) - epochs in range(samples["val"], epochs), "and about val and test"


@pytest.mark.parametrize(
    "setting",
    ["trainer=ddp_cpu", "scheme=ema", "trainer.compile=true"],
)
def test_what_cannot_be_shared_is_run_alone(tmp_path, setting):
    assert fusion_key(plain(compose([*SMOKE, setting], output_dir=tmp_path))) is None


@pytest.mark.parametrize("setting", ["dataset.batch_size=32", "teacher.cache=unaugmented", "trainer.max_epochs=3",
                                     "augment=shift", "feature_loss=[at]"])  # fmt: skip
def test_what_sees_other_data_or_another_teacher_is_of_another_group(tmp_path, setting):
    keys = [fusion_key(plain(compose([*SMOKE, *more], output_dir=tmp_path))) for more in ([], [setting])]
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("settings", "cells"),
    [
        (
            ["student=mlp", "trainer.gradient_stats_every_n_steps=5", "trainer.max_epochs=3"],
            [["alpha=0.1"], ["alpha=0", "temperature=2"], ["seed=1"], ["alpha=1"], ["alpha=1", "seed=1"],
             ["loss.weight=3", "optimizer.lr=0.01"]],
        ),
        (
            ["student=resnet8", "trainer.limit_train_batches=3", "optimizer=sgd"],
            [["alpha=0.1"], ["alpha=0.9", "temperature=1"]],
        ),
    ],
    ids=["mlp", "batch norm"],
)  # fmt: skip
def test_steps_taken_together_are_those_taken_one_by_one_but_for_rounding(
    tmp_path, store, monkeypatch, settings, cells
):
    taken = []
    step = Stack.step
    monkeypatch.setattr(Stack, "step", lambda self, batches: (step(self, batches), taken.append(len(batches))))
    settings = [*SMOKE[:2], "trainer.max_epochs=2", *settings]
    for backend in ("loop", "vmap"):
        assert not together(tmp_path / backend, store, cells, settings, backend=backend)
        assert bool(taken) == (backend == "vmap")
    for number, cell in enumerate(cells):
        folders = [tmp_path / backend / str(number) for backend in ("loop", "vmap")]
        one, other = (load_file(folder / "student.safetensors") for folder in folders)
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4, msg=f"{cell} {name}")
        sizes = [(folder / "checkpoints" / "last.ckpt").stat().st_size for folder in folders]
        assert sizes[1] < 1.01 * sizes[0], "the others' weights were saved, too"


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["loop", "streams", "vmap"])
def test_on_a_gpu_jobs_together_come_to_what_each_comes_to_alone_but_for_rounding(
    gpu, tmp_path, store, monkeypatch, backend
):
    streams, turn, stacked, step = set(), step_backends.Streams.turn, [], Stack.step

    @contextmanager
    def turned(self, module):
        with turn(self, module):
            streams.add(torch.cuda.current_stream().cuda_stream)
            yield

    monkeypatch.setattr(step_backends.Streams, "turn", turned)
    monkeypatch.setattr(Stack, "step", lambda self, batches: (step(self, batches), stacked.append(len(batches))))
    settings = ["experiment=smoke", "tracking=none", "student=mlp", "optimizer=sgd", "trainer.accelerator=gpu"]
    cells = [["alpha=0.1"], ["alpha=0.5", "temperature=2"], ["seed=1"]]
    assert not together(tmp_path, store, cells, settings, backend=backend)
    assert len(streams - {torch.cuda.default_stream().cuda_stream}) == (3 if backend == "streams" else 0)
    assert bool(stacked) == (backend == "vmap")
    for number, cell in enumerate(cells):
        run(compose([*settings, *cell], output_dir=tmp_path / f"alone{number}", store_dir=store))
        one, other = (load_file(tmp_path / name / "student.safetensors") for name in (str(number), f"alone{number}"))
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-4, rtol=1e-3, msg=f"{cell} {name}")


def test_students_that_draw_random_numbers_are_stepped_one_by_one(tmp_path, store):
    settings, cells = [*SMOKE, "student.dropout=0.2"], [["alpha=0.1"], ["alpha=0.5"]]
    for backend in ("loop", "vmap"):
        assert not together(tmp_path / backend, store, cells, settings, backend=backend)
    assert outcome(tmp_path / "loop" / "1") == outcome(tmp_path / "vmap" / "1")


def test_auto_decides_by_what_it_measured_and_says_so(tmp_path, store, caplog):
    with caplog.at_level("INFO"):
        cells = [["alpha=0.1"], ["alpha=0.5"]]
        settings = [*SMOKE[:2], "trainer.max_epochs=3", "student=mlp"]
        assert not together(tmp_path, store, cells, settings, backend="auto")
    (said,) = [r.getMessage() for r in caplog.records if "a step of 2 students" in r.getMessage()]
    chosen = json.loads((tmp_path / "0" / "results.json").read_text())["cost"]["fused"]
    found = {way: float(took) for took, way in re.findall(r"([\d.]+) ms \((\w+)\)", said)}
    assert set(found) == {"loop", "vmap"}, "a CPU has no streams"
    assert chosen == {"students": 2, "backend": chosen["backend"]}
    assert found[chosen["backend"]] == min(found.values()), "equal where they round to the same"
    assert said.startswith(f"fused: {chosen['backend']}, a step of 2 students")


def test_a_student_is_joined_when_it_has_done_more_than_a_step(tmp_path, store, monkeypatch):
    """What it made in validation is shared; on a GPU nobody may read it before."""
    done, turn, join = [], step_backends.Streams.turn, step_backends.Streams.join

    def turned(self, module):
        done.append(module.alpha)
        return turn(self, module)

    def joined(self, modules):
        done.append([module.alpha for module in modules])
        join(self, modules)

    monkeypatch.setattr(step_backends.Streams, "turn", turned)
    monkeypatch.setattr(step_backends.Streams, "join", joined)
    settings = [*SMOKE[:2], "student.width=2", "trainer.max_epochs=2", "trainer.limit_train_batches=2"]
    assert not together(tmp_path, store, [["alpha=0.1"], ["alpha=0.5"]], settings, backend="streams", max_students=2)
    step, last = [0.1, 0.5, [0.1, 0.5]], [0.1, [0.1], 0.5, [0.5], [0.1, 0.5]]
    assert done == [*step, *last, *step, *last]


def test_as_many_students_at_once_as_there_is_memory_for(tmp_path, store, monkeypatch, caplog):
    cells = [["seed=0"], ["seed=1"], ["seed=2"], ["seed=3"], ["seed=4"]]
    settings = [*SMOKE, "trainer.max_epochs=1", "alpha=1"]
    monkeypatch.setattr(memory, "peak_of", lambda work, device: (work(), 10**9)[1])
    monkeypatch.setattr(memory, "free", lambda device: 2 * 10**9)
    with caplog.at_level("INFO"):
        assert not together(tmp_path, store, cells, settings)
    costs = [json.loads((tmp_path / str(n) / "results.json").read_text())["cost"]["fused"] for n in range(5)]
    assert [cost["students"] for cost in costs] == [2, 2, 2, 2, 1]
    assert "takes 1000 MB, 2.0 GB are free: 2 of 5 at once" in caplog.text


@pytest.mark.slow
def test_the_peak_of_some_work_is_found_though_it_is_given_back():
    """In a process of its own: one that has done much has holes in its memory, and work that fits takes no more."""
    code = """
import torch
from kdexp.sweeps import memory
device = torch.device("cpu")
print(memory.peak_of(lambda: torch.ones(50 * 2**20), device), memory.free(device))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    peak, free = done.stdout.split()
    if peak == "None":
        pytest.skip("this system does not say how much memory a process has")
    size = 4 * 50 * 2**20
    assert size * 0.9 < int(peak) < size * 1.5
    assert int(free) > 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [("backend=gpu", "backend must be one of auto, loop, streams, vmap, got gpu"),
     ("max_students=0", "max_students must be null or at least 1, got 0"),
     ("max_students=few", "max_students must be null or at least 1, got few")],
)  # fmt: skip
def test_a_wrong_setting_of_the_launcher_is_said_in_one_line(command, setting, message):
    done = command("kdexp-train", "-m", "alpha=0,1", "hydra/launcher=fused", f"hydra.launcher.{setting}", rc=2)
    assert done.stderr == f"error: hydra.launcher.{message}\n"


def test_the_launcher_knows_the_backends():
    assert BACKENDS == step_backends.BACKENDS


@pytest.mark.parametrize("setting", ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.1"])
def test_what_the_trainer_does_with_gradients_is_done_on_any_backend(tmp_path, store, setting):
    settings, cells = [*SMOKE[:2], "trainer.max_epochs=2", "student=mlp", setting], [["alpha=0.1"], ["alpha=0.5"]]
    for backend in ("loop", "vmap"):
        assert not together(tmp_path / backend, store, cells, settings, backend=backend)
    one, other = (load_file(tmp_path / backend / "1" / "student.safetensors") for backend in ("loop", "vmap"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4)
