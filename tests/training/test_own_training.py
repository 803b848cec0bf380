"""Losses and the Distiller in somebody's own loop and Trainer, with networks and loaders that are not kdexp's."""

import copy
import re
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.datasets import FakeData
from torchvision.transforms import ToTensor

from kdexp.config.compose import compose, plain
from kdexp.config.objects import target
from kdexp.contracts import Batch
from kdexp.feature_losses.at import AT, at
from kdexp.feature_losses.cc import cc
from kdexp.feature_losses.crd import CRD
from kdexp.feature_losses.fitnet import FitNet
from kdexp.feature_losses.ickd import ickd
from kdexp.feature_losses.nst import nst
from kdexp.feature_losses.penultimate import cosine, feature_mse
from kdexp.feature_losses.pkt import pkt
from kdexp.feature_losses.rkd import RKD, rkd
from kdexp.feature_losses.simkd import ReusedClassifier, SimKD
from kdexp.features import Reader, pair_of
from kdexp.hooked_loss import HookedLoss
from kdexp.losses.kd import KD
from kdexp.losses.label_smoothing import LabelSmoothing
from kdexp.robustness.attacks import Attack
from kdexp.schemes.pgd_at import PGDDistiller
from kdexp.tasks.classification import Classification
from kdexp.training.distiller import Distiller
from kdexp.training.terms import Term

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own_training.md").read_text(), re.DOTALL)
FEATURE_LOSSES = sorted(path.stem for path in (ROOT / "conf" / "feature_loss").glob("*.yaml"))
CLASSES, SAMPLES, BATCH = 4, 24, 8


def test_the_loop_of_the_documentation_runs():
    (block,) = [block for block in BLOCKS if "HookedLoss" in block]
    names: dict = {}
    exec(block, names)
    assert names["loss"].isfinite()
    assert list(names["hints"].parameters())


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers", "ignore:The number of training")
def test_the_trainer_of_the_documentation_runs(tmp_path, monkeypatch):
    (block,) = [block for block in BLOCKS if "trainer.fit(" in block]
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block, names)
    assert {"train/loss_fitnet", "val/acc", "val/agreement"} <= set(names["distiller"].epoch_metrics) | {
        *names["trainer"].callback_metrics
    }


# In one's own loop


def test_a_copy_of_the_student_is_not_the_student():
    """An average of its weights, say, that runs between the student and the loss."""
    student, teacher = Own(), Own()
    images = torch.randn(4, 3, 8, 8)
    pair = pair_of(student, teacher, images)
    with HookedLoss(AT(pair), pair) as attention:
        average = copy.deepcopy(student)
        student(images)
        with torch.no_grad():
            teacher(images)
        alone = attention()
        assert alone.requires_grad
        student(images)
        with torch.no_grad():
            teacher(images)
            average(images + 1)
        assert torch.equal(attention(), alone)
        with torch.no_grad():
            teacher(images)
            average(images)
        with pytest.raises(ValueError, match=r"^the student must run before each call of its feature loss"):
            attention()


class Own(nn.Module):
    """A network as people write it, with channels of its own."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
                                   nn.Conv2d(width, width, 3, padding=1), nn.ReLU())  # fmt: skip
        self.second = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU())
        self.third = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2 * width, 3 * width, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(3 * width, CLASSES)

    def forward(self, x):
        return self.head(self.third(self.second(self.first(x))).mean((2, 3)))


def resnet():
    return timm.create_model("test_resnet", num_classes=CLASSES)


def images(samples: int = 6) -> torch.Tensor:
    return torch.randn(samples, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return pair_of(Own(), resnet().eval(), images())


def hooks(*networks):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for n in networks for m in n.modules())


@pytest.mark.parametrize("teacher", ["timm", "own"])
@pytest.mark.parametrize("name", [name for name in FEATURE_LOSSES if name != "minilm"])  # these have no attention
def test_every_feature_loss_trains_with_its_parameters_and_leaves_no_hook(name, teacher):
    torch.manual_seed(0)
    networks = (Own(), resnet().eval()) if teacher == "timm" else (resnet(), Own().eval())
    x, labels = images(), torch.randint(CLASSES, (20,))
    index = torch.arange(len(x))
    pair = pair_of(*networks, x, target=labels)
    settings = plain(compose([f"feature_loss={name}", "dataset=synthetic"], output_dir="unused").feature_loss[name])
    kind = target(settings, "feature_loss")
    if kind is SimKD:
        pair = pair_of(ReusedClassifier(pair.student, pair.teacher), pair.teacher.network, x)
    student, other = pair.student.network, pair.teacher.network
    with HookedLoss(kind(pair), pair) as loss:
        if name == "ft":
            loss.loss.in_init_stage = True  # its paraphraser's stage
        optimizer = torch.optim.SGD([*student.parameters(), *loss.parameters()], lr=0.01)
        for _ in range(2):
            student(x)
            with torch.no_grad():
                other(x)
            value = loss(Batch(x, labels[index], index))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        assert value.isfinite()
        trained = [p for p in loss.parameters() if p.requires_grad]
        assert name == "ft" or all(p.grad is not None for p in trained)
        assert any(p.grad is not None and p.grad.any() for p in [*trained, *student.parameters()])
    assert hooks(student, other) == 0


def test_it_is_what_the_loss_gives_for_the_features_of_the_last_run(pair):
    x, loss, networks = images(), RKD(pair), (pair.student.network.eval(), pair.teacher.network)
    student, teacher = map(Reader, networks, (loss.student_paths, loss.teacher_paths))
    expected = loss(student(x), teacher(x))
    hooked = HookedLoss(loss, pair)
    for network in networks:
        network(images(3))  # another batch before it
        network(x)
    assert torch.equal(hooked(), expected)


def test_networks_are_no_part_of_the_loss(pair):
    loss = HookedLoss(FitNet(pair), pair)
    assert {name.split(".")[0] for name, _ in loss.named_parameters()} == {"loss"}
    assert sum(1 for _ in loss.parameters()) == len(list(FitNet(pair).parameters())) > 0


@pytest.mark.parametrize("loss", [rkd, cc, pkt, cosine, feature_mse], ids=lambda loss: loss.__name__)
def test_maps_are_refused_by_a_loss_of_vectors_with_the_way_to_vectors(loss):
    way = r"\.mean\(\(2, 3\)\) pools maps to vectors, \.flatten\(1\) keeps every position"
    rule = rf"^student_features must have shape \(N, F\) for {loss.__name__}, got \(6, 4, 3, 2\): {way}$"
    with pytest.raises(ValueError, match=rule):
        loss(torch.rand(6, 4, 3, 2), torch.rand(6, 4, 3, 2))


@pytest.mark.parametrize("loss", [at, nst, ickd], ids=lambda loss: loss.__name__)
def test_vectors_are_refused_by_a_loss_of_maps_with_the_way_to_maps(loss):
    rule = rf"^student_maps must have shape \(N, C, H, W\) for {loss.__name__}, got \(6, 4\): vectors have no positions"
    with pytest.raises(ValueError, match=rule):
        loss(torch.rand(6, 4), torch.rand(6, 4))


def test_a_network_that_did_not_run_is_named(pair):
    loss = HookedLoss(AT(pair), pair)
    pair.student.network(images())
    with pytest.raises(ValueError, match=r"^the teacher must run before each call of its feature loss, got no output"):
        loss()
    pair.student.network(images())
    pair.teacher.network(images())
    loss()
    with pytest.raises(ValueError, match=r"^the student must run before each call of its feature loss, got no output"):
        loss()


def test_crd_says_that_it_needs_the_labels_and_the_index():
    networks = Own(), resnet().eval()
    with pytest.raises(ValueError, match=r"^feature_loss=crd needs the label of each training sample, .* got none$"):
        CRD(pair_of(*networks, images()))
    pair = pair_of(*networks, images(), target=torch.randint(CLASSES, (20,)))
    loss = HookedLoss(CRD(pair), pair)
    x = images()
    for batch, got in ((None, "None"), (Batch(x, torch.zeros(6, dtype=torch.int64)), r"\(x, y\)")):
        for network in networks:
            network(x)
        with pytest.raises(ValueError, match=rf"^(a )?batch must be .*index.* for feature_loss=crd, got {got}$"):
            loss(batch)


def test_simkd_says_which_network_it_trains(pair):
    with pytest.raises(ValueError, match=r"^feature_loss=simkd trains ReusedClassifier\(.*, got Own$"):
        SimKD(pair)


# In one's own Trainer


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(SAMPLES, 3, 8, 8, generator=generator), torch.randint(CLASSES, (SAMPLES,), generator=generator)


class Numbered(Dataset):
    """(x, y, index)."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, place):
        x, y = samples()
        return x[place], y[place], place


def own_batches() -> list[Batch]:
    x, y = samples()
    parts = torch.arange(SAMPLES).split(BATCH)
    return [Batch(x[part], y[part], part) for part in parts]


LOADERS = {
    "kdexp's": lambda: DataLoader(own_batches(), batch_size=None),
    "(x, y)": lambda: DataLoader(TensorDataset(*samples()), batch_size=BATCH),
    "(x, y, index)": lambda: DataLoader(Numbered(), batch_size=BATCH),
}


def distiller(*feature_losses: type[nn.Module], **changed) -> Distiller:
    torch.manual_seed(2)
    student, teacher = Own(4), Own(8).eval()
    pair = pair_of(student, teacher, samples()[0], target=samples()[1])
    losses = {kind.__name__.lower(): Term(kind(pair), weight=0.5) for kind in feature_losses}
    arguments = {"teacher": teacher, "soft_loss": KD(2.0), "alpha": 0.3, "feature_losses": losses} | changed
    return Distiller(student, partial(torch.optim.SGD, lr=0.05), task=Classification(CLASSES), **arguments)


@pytest.fixture
def trainer():
    return partial(
        pl.Trainer, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


@pytest.mark.parametrize(
    ("kinds", "feature_losses"), [(["(x, y)", "(x, y, index)"], [FitNet]), (["(x, y, index)"], [CRD])]
)
def test_own_loaders_give_the_numbers_of_kdexps_own_batches_to_the_bit(trainer, kinds, feature_losses):
    found = {}
    for kind in ["kdexp's", *kinds]:
        module = distiller(*feature_losses)
        own = trainer(max_epochs=3)
        own.fit(module, LOADERS[kind](), LOADERS[kind]())
        found[kind] = module.state_dict(), dict(own.callback_metrics)
    weights, metrics = found.pop("kdexp's")
    assert {"train/loss_soft", "val/acc", "val/agreement"} <= set(metrics)
    for others, measured in found.values():
        assert all(torch.equal(tensor, others[name]) for name, tensor in weights.items())
        assert measured == metrics


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_a_data_set_of_torchvision_trains_without_a_validation_part(trainer):
    data = FakeData(SAMPLES, (3, 8, 8), CLASSES, ToTensor())
    module = distiller()
    trainer(max_epochs=1).fit(module, DataLoader(data, batch_size=BATCH, shuffle=True))
    assert module.epoch_metrics["train/loss"] > 0


@pytest.mark.filterwarnings("ignore:Your `val_dataloader`'s sampler has shuffling enabled")
def test_the_teacher_is_compared_on_the_samples_of_each_epoch(trainer):
    """A validation loader of one's own may shuffle: what the teacher gave in another epoch is of other samples."""
    module = distiller(soft_loss=None, alpha=1.0)
    module._optimizer = partial(torch.optim.SGD, lr=0.0)  # nothing moves, so every epoch measures the same
    for norm in (m for m in module.student.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 0.0
    with torch.no_grad():
        for network in (module.student, *module.teacher.networks):
            network.head.weight.mul_(100)  # so that samples differ in what the networks say
    found = []

    class Kept(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            found.append(float(pl_module.epoch_metrics["val/kl_to_teacher"]))

    shuffled = DataLoader(TensorDataset(*samples()), batch_size=BATCH, shuffle=True)
    trainer(max_epochs=3, callbacks=[Kept()]).fit(module, LOADERS["(x, y)"](), shuffled)
    assert len(found) >= 3
    assert found[1:] == pytest.approx([found[-1]] * len(found[1:]), rel=1e-5)


def attacked() -> Distiller:
    attack = Attack(norm="linf", eps=0.1, steps=1, abs_stepsize=0.1, random_start=True, bounds=None)
    sgd = partial(torch.optim.SGD, lr=0.05)
    return PGDDistiller(Own(4), sgd, task=Classification(CLASSES), mean=[0.0], std=[1.0], attack=attack)


NEEDS_INDEX = r"^a batch must be \(x, y, index\), .* for {}, got \(x, y\)$"


def test_what_needs_the_index_refuses_batches_without_in_one_line(trainer):
    cached = distiller()
    cached.cache = Cached()
    for module, name in (
        (distiller(CRD), "feature_loss=crd"),
        (attacked(), "adversarial training"),
        (cached, "cached outputs of the teacher"),
    ):
        with pytest.raises(ValueError, match=NEEDS_INDEX.format(name)):
            trainer(max_epochs=1).fit(module, LOADERS["(x, y)"](), LOADERS["(x, y)"]())


class Cached:
    """A cache that is there."""

    splits = ("train", "val")

    def prepare(self, split, epoch=0):
        pass


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        ({"x": torch.zeros(2, 3, 8, 8)}, "dict"),
        (torch.zeros(2, 3, 8, 8), "Tensor"),
        ([torch.zeros(2, 3, 8, 8), ["a", "b"]], "list of Tensor, list"),
        ([torch.zeros(2, 3, 8, 8)], "list of Tensor"),
    ],
)
def test_a_batch_of_another_form_is_refused_in_one_line(trainer, batch, got):
    with pytest.raises(ValueError, match=rf"^a batch must be tensors \(x, y\) or \(x, y, index\), got {got}$"):
        trainer(max_epochs=1).fit(distiller(), DataLoader([batch], batch_size=None), LOADERS["(x, y)"]())


def test_a_schedule_without_a_last_epoch_is_refused(trainer):
    module = distiller(alpha=lambda progress: progress)
    with pytest.raises(ValueError, match=r"^Trainer.max_epochs must be given where alpha, .* got -1$"):
        trainer(max_steps=2).fit(module, LOADERS["(x, y)"](), LOADERS["(x, y)"]())
    trainer(max_steps=2).fit(distiller(), LOADERS["(x, y)"](), LOADERS["(x, y)"]())


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        (
            {"soft_loss": None},
            "soft_loss or feature_losses must be given with a teacher unless alpha is 1, got neither",
        ),
        ({"teacher": None}, "teacher must be given with soft_loss=KD unless alpha is 1, got None"),
        (
            {"teacher": None, "alpha": lambda progress: 1 - progress},
            "teacher must be given with soft_loss=KD unless alpha is 1, got None",
        ),
    ],
)
def test_a_teacher_and_a_loss_that_learns_from_it_go_together(changed, rule):
    with pytest.raises(ValueError, match=f"^{rule}$"):
        distiller(**changed)


def test_feature_losses_need_a_teacher():
    with pytest.raises(ValueError, match=r"^teacher must be given with feature_losses \(at, fitnet\), got None$"):
        distiller(AT, FitNet, teacher=None, soft_loss=None)


@pytest.mark.parametrize(
    "changed",
    [
        {"soft_loss": None, "teacher": None},
        {"alpha": 1.0, "teacher": None},
        {"alpha": 1.0, "soft_loss": None},
        {"soft_loss": LabelSmoothing(0.1), "teacher": None},
    ],
)
def test_a_student_may_learn_from_the_labels_alone(trainer, changed):
    trainer(max_epochs=1).fit(distiller(**changed), LOADERS["(x, y)"](), LOADERS["(x, y)"]())


def test_feature_losses_alone_are_enough_for_a_teacher():
    distiller(FitNet, soft_loss=None)
