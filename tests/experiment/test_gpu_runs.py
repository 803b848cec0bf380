"""Whole runs on a GPU, and on a CPU what both can do: `bash scripts/gpu_check.sh` runs all that is marked with gpu."""

import json

import pytest
import torch
from torch import nn

from kdexp import results
from kdexp.config.compose import compose
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.run import run
from kdexp.training.distiller import Distiller
from kdexp.training.fit import fit

pytestmark = pytest.mark.gpu

SMOKE = ["experiment=smoke", "tracking=none"]
IMAGES = [
    "dataset.input_shape=[3,8,8]", "dataset.mean=[0.5,0.5,0.5]", "dataset.std=[0.2,0.2,0.2]",
    "dataset.source.train_samples=256", "teacher=cnn_small", "student=cnn_small",
]  # fmt: skip


class Watched(Experiment):
    """Notes what its student's layers give in training."""

    def __init__(self, config):
        super().__init__(config)
        self.given = given = []

        def note(layer, inputs, output):  # no method: networks are copied, with what their hooks belong to
            if layer.training and not output.is_meta:
                given.append(output.detach())

        for layer in self.student.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(note)


def watched(folder, store, accelerator, *overrides):
    """The results of a run, and what the layers of its student gave."""
    made = []
    settings = [*SMOKE, f"trainer.accelerator={accelerator}", *overrides]
    config = compose(settings, output_dir=folder, store_dir=store)
    record = run(config, lambda config: made.append(Watched(config)) or made[-1])
    return record, made[0]


def nll(record):
    return record["metrics"]["test"]["last"]["nll"]


@pytest.mark.parametrize(
    ("precision", "kind"), [("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)], ids=["bf16", "fp16"]
)
def test_a_student_of_half_precision_learns_what_one_of_full_precision_does(
    tmp_path, store, accelerator, precision, kind
):
    if (accelerator, precision) == ("cpu", "16-mixed"):
        pytest.skip("fp16 needs a GPU: kdexp refuses it on a CPU")
    full, _ = watched(tmp_path / "full", store, accelerator)
    half, experiment = watched(tmp_path / "half", store, accelerator, f"trainer.precision={precision}")
    assert {output.dtype for output in experiment.given} == {kind}
    assert {parameter.dtype for parameter in experiment.student.parameters()} == {torch.float32}
    assert nll(half) != nll(full)
    assert nll(half) == pytest.approx(nll(full), rel=0.1)
    checkpoint = torch.load(tmp_path / "half" / "checkpoints" / "last.ckpt", weights_only=True)
    scaler = checkpoint.get("MixedPrecision", {})
    assert bool(scaler) == (precision == "16-mixed")
    if scaler:
        assert scaler["scale"] > 0
        assert scaler["_growth_tracker"] > 0  # so many steps were taken since one was left out


def test_feature_maps_with_their_channels_last_give_the_same_student(tmp_path, store, accelerator):
    plain, _ = watched(tmp_path / "plain", store, accelerator, *IMAGES)
    fast, experiment = watched(tmp_path / "fast", store, accelerator, *IMAGES, "trainer.channels_last=true")
    maps = [output for output in experiment.given if output.ndim == 4 and output.shape[1] > 1]
    assert maps
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in maps)
    assert any(output.is_cuda for output in maps) == (accelerator == "gpu")
    assert nll(fast) == pytest.approx(nll(plain), rel=1e-2)


def test_a_compiled_student_is_the_same(tmp_path, store, accelerator):
    small = ["teacher=mlp", "student=mlp"] if accelerator == "cpu" else []  # convolutions take minutes to compile there
    settings = [*SMOKE, f"trainer.accelerator={accelerator}", *IMAGES, *small]
    plain = run(compose(settings, output_dir=tmp_path / "plain", store_dir=store))
    torch._dynamo.utils.counters.clear()
    fast = run(compose([*settings, "trainer.compile=true"], output_dir=tmp_path / "fast", store_dir=store))
    assert torch._dynamo.utils.counters["stats"]["calls_captured"] > 0
    assert nll(fast) == pytest.approx(nll(plain), rel=1e-2)


@pytest.mark.parametrize(
    ("one", "many"), [("cpu", "ddp_cpu"), ("gpu", "ddp"), ("gpu", "fsdp")], ids=["ddp_cpu", "ddp", "fsdp"]
)
def test_several_processes_give_what_one_gives_on_the_same_global_batch(request, command, tmp_path, one, many):
    """On GPUs as many as there are. The mlp has no batch statistics: they differ by the order of additions alone."""
    if one == "gpu":
        request.getfixturevalue("gpu")
    found = {}
    for trainer in (one, many):
        settings = ["student=mlp", f"trainer={trainer}", "trainer.max_epochs=3", "trainer.precision=32-true"]
        settings += [f"trainer.accelerator={one}", f"hydra.run.dir={tmp_path / trainer}"]
        command("kdexp-train", *SMOKE, *settings)
        found[trainer] = json.loads((tmp_path / trainer / "results.json").read_text())["metrics"]
    for split in ("val", "test"):
        for name, value in found[one][split]["last"].items():
            assert found[many][split]["last"][name] == pytest.approx(value, abs=1e-4 if one == "cpu" else 1e-2), name


WAYS = {"cpu": ("32-true", "bf16-mixed"), "gpu": ("32-true", "bf16-mixed", "16-mixed")}


@pytest.mark.parametrize("begun", WAYS["gpu"])
def test_a_training_goes_on_in_another_precision_and_on_another_device(tmp_path, store, accelerator, begun):
    """Begun on the device, it goes on there in each precision, and on a CPU."""
    if begun not in WAYS[accelerator]:
        pytest.skip("fp16 needs a GPU: kdexp refuses it on a CPU")
    start = Experiment(smoke(tmp_path, store)).student.state_dict()
    whole, _ = trained(tmp_path / "whole", store, "cpu", "32-true", epochs=2)
    for place, precision in sorted({("cpu", "32-true"), *((accelerator, way) for way in WAYS[accelerator])}):
        folder = tmp_path / f"{place}-{precision}"
        _, steps = trained(folder, store, accelerator, begun, epochs=1)
        student, more = trained(folder, store, place, precision, epochs=2)
        assert more == 2 * steps  # the optimizer remembers what was before
        assert distance(student, whole) < 0.3 * distance(start, whole)


def smoke(folder, store):
    return compose([*SMOKE, "student=mlp", "scheduler=constant"], output_dir=folder, store_dir=store)


def trained(folder, store, accelerator, precision, epochs):
    """The student and its optimizer's steps, after so many epochs in all: those that the folder has count."""
    experiment = Experiment(smoke(folder, store))
    settings = {"accelerator": accelerator, "devices": 1, "precision": precision, "max_epochs": epochs}
    fit(experiment.distiller, experiment.data.student, folder, settings, owner="gpu")
    (optimizer,) = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"]
    return experiment.student.state_dict(), int(optimizer["state"][0]["step"])


def distance(one, other):
    return sum((one[name].cpu() - other[name].cpu()).square().sum() for name in other).sqrt()


class Stop(Exception):
    pass


def test_a_run_that_was_begun_on_a_gpu_goes_on_where_there_is_none(gpu, command, tmp_path, store, monkeypatch):
    begin = Distiller.on_train_epoch_start

    def stopped(self):
        if self.current_epoch == 1:
            raise Stop
        begin(self)

    monkeypatch.setattr(Distiller, "on_train_epoch_start", stopped)
    with pytest.raises(Stop):
        watched(tmp_path / "run", store, "auto")
    command("kdexp-train", f"resume={tmp_path / 'run'}", CUDA_VISIBLE_DEVICES="")
    assert results.read(tmp_path / "run", "run")["status"] == "completed"
    monkeypatch.setattr(Distiller, "on_train_epoch_start", begin)
    whole, _ = watched(tmp_path / "whole", store, "cpu")
    assert nll(results.read(tmp_path / "run", "run")) == pytest.approx(nll(whole), rel=1e-2)


def test_running_out_of_a_gpus_memory_is_said(gpu, tmp_path, store):
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)  # 14 MB of 140 GB; the layer below takes 268
    try:
        with pytest.raises(torch.OutOfMemoryError):
            watched(tmp_path, store, "gpu", "student=mlp", "student.hidden=[8192,8192]")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert results.read(tmp_path, "run")["status"] == "oom"
