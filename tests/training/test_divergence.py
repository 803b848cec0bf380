"""A training that becomes NaN or Inf saves nothing of it, and says whose it was and what the data hold."""

import json

import pytest
import torch
from small_training import CLASSES, distiller, network, train
from torch import nn

from kdexp import results
from kdexp.config.compose import compose
from kdexp.contracts import Source
from kdexp.data import synthetic
from kdexp.experiment.run import run
from kdexp.sweeps.shared_experiment import run_together
from kdexp.training.distiller import Distiller
from kdexp.training.step_watch import Diverged

SMOKE = ["experiment=smoke", "tracking=none", "student.width=2"]
FAR = ["optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant", "trainer.limit_train_batches=1"]
CLEAN = "no sample held in memory has NaN or Inf"


def experiment(folder, store, *overrides):
    return run(compose([*SMOKE, *overrides], output_dir=folder, store_dir=store))


@pytest.mark.parametrize("kind", [["alpha=1"], ["scheme=mutual"], ["scheme=ema"]], ids=" ".join)
def test_one_that_diverges_in_its_only_step_is_not_completed_and_leaves_no_weights(tmp_path, kind):
    with pytest.raises(Diverged, match=rf"^student: val/loss became NaN or Inf at step 0 \(epoch 0\); {CLEAN}$"):
        experiment(tmp_path / "run", tmp_path / "store", *FAR, "trainer.max_epochs=1", *kind)
    assert results.read(tmp_path / "run", "run")["status"] == "diverged"
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.fixture
def break_at(monkeypatch):
    """Make a tensor of the student bad after an optimizer step."""

    def patch(step, name, value):
        done = Distiller.on_train_batch_end

        def then(self, outputs, batch, batch_idx):
            done(self, outputs, batch, batch_idx)
            if self.global_step == step + 1:
                state = self.student.state_dict()
                state[name or next(iter(state))].view(-1)[0] = value

        monkeypatch.setattr(Distiller, "on_train_batch_end", then)

    return patch


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["weight", "running_var"])
def test_one_that_diverges_in_the_last_step_of_an_epoch_keeps_the_checkpoints_of_the_one_before(
    tmp_path, store, break_at, kind, value
):
    network = experiment(tmp_path / "whole", store, "alpha=1", "trainer.max_epochs=3")
    weights = torch.load(tmp_path / "whole" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    name = next(name.removeprefix("student.") for name in weights if name.endswith(kind))
    steps = network["samples"]["train"] // 64
    break_at(2 * steps - 1, name, value)
    error = rf"^student: the weights became NaN or Inf at step {2 * steps - 1} \(epoch 1\); {CLEAN}$"
    with pytest.raises(Diverged, match=error):
        experiment(tmp_path / "run", store, "alpha=1", "trainer.max_epochs=3")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint["epoch"] == 0
        assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())
    assert not (tmp_path / "run" / "student.safetensors").exists()


@pytest.mark.parametrize("when", ["in the middle", "in the last step"])
def test_a_teacher_that_diverges_is_named_and_not_kept(tmp_path, break_at, when):
    settings = ["teacher.recipe.max_epochs=1"]
    if when == "in the last step":
        break_at(6, None, float("nan"))  # of 7: 461 // 64
        settings += ["teacher=mlp"]
    else:
        settings += ["teacher.recipe.optimizer.lr=1e30"]
    with pytest.raises(Diverged, match=rf"^teacher: the .* became NaN or Inf at step \d+ \(epoch 0\); {CLEAN}$"):
        experiment(tmp_path / "run", tmp_path / "store", *settings)
    assert not list((tmp_path / "store").rglob("teacher.safetensors"))
    assert results.read(tmp_path / "run", "run")["status"] == "diverged"


def with_nan(where: str, **settings: object) -> Source:
    """Made-up features of which some are not numbers."""
    source = synthetic.load(**settings)
    if where == "train":
        source.train_inputs[::2, 0] = float("nan")
    else:
        val = source.train_inputs[:40].clone(), source.train_target[:40]
        val[0][3, 0] = float("inf")
        return Source(source.train_inputs, source.train_target, source.test_inputs, source.test_target, val=val)
    return source


@pytest.mark.parametrize("where", ["train", "val"])
def test_data_that_hold_nan_are_refused_by_name(tmp_path, store, monkeypatch, where):
    monkeypatch.setenv("KDEXP_TRUST", "test_divergence")
    data = ["dataset.source._target_=test_divergence.with_nan", f"+dataset.source.where={where}",
            "dataset.input_shape=[8]", "dataset.mean=[0]", "dataset.std=[1.4]", "student=mlp", "alpha=1"]  # fmt: skip
    with pytest.raises(ValueError, match=rf"^dataset.source must give inputs without NaN or Inf in {where}, got "):
        run(compose([*SMOKE[:2], *data], output_dir=tmp_path, store_dir=store))


def test_a_mask_that_holds_infinity_from_the_beginning_is_no_divergence():
    student = network()
    student.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))
    train(distiller(student, alpha=1.0), epochs=2)


def test_weights_are_looked_at_in_a_training_of_ones_own_too():
    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.unused = network(), nn.Parameter(torch.zeros(1))

        def forward(self, inputs):
            return self.inner(inputs)

    student = Breaks()
    student.unused.data.fill_(float("nan"))  # no loss sees it
    with pytest.raises(Diverged, match=r"^the weights became NaN or Inf at step 2 \(epoch 0\)$"):
        train(distiller(student, alpha=1.0), epochs=1)
    assert CLASSES == 3


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_of_jobs_in_one_process_only_the_one_that_diverges_ends(tmp_path, store, backend):
    cells = [["optimizer.lr=0.1"], ["optimizer.lr=1e30"], ["optimizer.lr=0.2"]]
    raised = {}

    def job(number, make):
        settings = [*SMOKE, *FAR, "trainer.max_epochs=2", "alpha=0.5", *cells[number]]
        try:
            run(compose(settings, output_dir=tmp_path / str(number), store_dir=store), make)
        except Diverged as error:
            raised[number] = str(error)

    run_together([lambda make, number=number: job(number, make) for number in range(3)], backend=backend)
    assert set(raised) == {1}
    assert raised[1].startswith("student: val/loss became NaN or Inf at step 0 (epoch 0)")
    statuses = [json.loads((tmp_path / str(number) / "results.json").read_text())["status"] for number in range(3)]
    assert statuses == ["completed", "diverged", "completed"]
    assert not (tmp_path / "1" / "checkpoints").exists()


ON_ONE_RANK = """
import torch
from torch import nn

class Odd(nn.Module):
    def forward(self, student_logits, teacher_logits, target):
        self.calls = getattr(self, "calls", 0) + self.training
        bad = self.calls == 5 and torch.distributed.get_rank() == 1
        return student_logits.square().mean() * (float("nan") if bad else 1.0)
"""


def test_all_ranks_end_when_the_loss_of_one_of_them_is_nan(command, tmp_path):
    (tmp_path / "odd.py").write_text(ON_ONE_RANK)
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    (tmp_path / "conf" / "loss" / "odd.yaml").write_text("_target_: odd.Odd\n")
    words = ("--config-dir", tmp_path / "conf", *SMOKE, "trainer=ddp_cpu", "loss=odd", "alpha=0.5")
    done = command("kdexp-train", *words, "hydra.run.dir=run", rc=1, timeout=120, KDEXP_TRUST="odd",
                   PYTHONPATH=str(tmp_path))  # fmt: skip
    record = results.read(tmp_path / "run", "run")
    assert record["status"] == "diverged"
    assert record["error"].startswith("Diverged: student: the soft loss became NaN or Inf at step 4 (epoch 0)")
    assert "became NaN or Inf at step 4" in done.stderr
