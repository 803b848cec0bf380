import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from kdexp.contracts import UNLABELED, Batch, Split, Splits
from kdexp.data import loaders
from kdexp.data.augment import Cutout, HorizontalFlip, RandomCrop
from kdexp.data.batch_order import BatchOrder
from kdexp.data.data_module import DataModule
from kdexp.data.loaders import TensorLoader

# Lightning tells us that our in-memory batches could be loaded by workers, and that this run is short.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty.*"),
    # From Python 3.12 on: worker processes are forked beside torch's threads, as torch does by default.
    # https://github.com/pytorch/pytorch/issues/154174
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]
SHAPE = (2, 4, 4)


@dataclass
class Images:
    """Streams what is really in memory."""

    tensor: torch.Tensor

    def __len__(self):
        return len(self.tensor)

    def __getitem__(self, index):
        return self.tensor[index]

    def fingerprint(self, store):
        return ""


def pixels(n: int) -> torch.Tensor:
    return torch.randint(256, (n, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def splits(train=37, val=11, inputs=None, wrap=lambda x: x) -> Splits:
    inputs = pixels(60) if inputs is None else inputs
    index = torch.randperm(60, generator=torch.Generator().manual_seed(0))

    def part(chosen):
        return Split(wrap(inputs), chosen % 3, chosen)

    return Splits(part(index[:train]), part(index[train : train + val]), part(torch.arange(9)))


def module(data=None, **changed) -> DataModule:
    arguments = {
        "augment": [RandomCrop(1), HorizontalFlip()], "mean": [0.4, 0.6], "std": [0.5, 0.25], "batch_size": 8,
        "eval_batch_size": 5, "drop_last": True, "seed": 3,
    }  # fmt: skip
    return DataModule(data or splits(), **(arguments | changed))


def batches(order: BatchOrder, epoch: int = 0) -> list[list[int]]:
    order.set_epoch(epoch)
    return list(order)


def flat(lists) -> list[int]:
    return [i for batch in lists for i in batch]


# Order


def test_shuffled_batches_are_full_differ_from_epoch_to_epoch_and_repeat_with_the_seed():
    def epochs(seed):
        order = BatchOrder(37, 8, shuffle=True, drop_last=True, seed=seed)
        return [batches(order, epoch) for epoch in (0, 1, 0)]

    first, second, again = epochs(0)
    assert [len(batch) for batch in first] == [8, 8, 8, 8]
    assert len(set(flat(first))) == 32
    assert first == again != second
    assert flat(epochs(1)[0]) != flat(first)
    assert flat(first) != sorted(flat(first))


def test_the_order_of_samples_does_not_depend_on_the_batch_size():
    small = BatchOrder(40, 4, shuffle=True, drop_last=True, seed=1)
    large = BatchOrder(40, 20, shuffle=True, drop_last=True, seed=1)
    assert flat(batches(small, 5)) == flat(batches(large, 5))


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("n", [37, 8, 64])
def test_the_ranks_together_see_the_batches_of_a_single_one(world_size, drop_last, n):
    def of(rank, size):
        return batches(BatchOrder(n, 8, shuffle=True, drop_last=drop_last, seed=2, rank=rank, world_size=size), 3)

    alone, together = of(0, 1), [of(rank, world_size) for rank in range(world_size)]
    for global_batch, *shares in zip(alone, *together, strict=True):
        assert sorted(global_batch) == sorted(flat(shares))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("n", range(4, 30))
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [4, 5, 12])
def test_without_drop_last_all_samples_come_once_and_every_rank_has_a_part_of_every_batch(n, world_size, batch_size):
    ranks = [
        batches(BatchOrder(n, batch_size, shuffle=False, drop_last=False, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert sorted(flat(flat(ranks))) == list(range(n))
    assert len({len(rank) for rank in ranks}) == 1
    sizes = [sum(map(len, shares)) for shares in zip(*ranks, strict=True)]
    assert max(sizes) - min(sizes) <= 1
    assert min(len(share) for rank in ranks for share in rank) >= 1
    if world_size == 1:
        assert max(sizes) <= batch_size
        assert len(sizes) == -(-n // batch_size)


def test_orders_that_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match=r"^dataset.batch_size must be at most the 7 training samples .*, got 8$"):
        BatchOrder(7, 8, shuffle=True, drop_last=True)
    with pytest.raises(ValueError, match=r"^dataset.batch_size must be divisible by the 3 ranks, got 8$"):
        BatchOrder(70, 8, shuffle=True, drop_last=True, world_size=3)
    with pytest.raises(
        ValueError, match=r"^trainer.devices must be at most the samples of each split, 3, got 4 ranks$"
    ):
        BatchOrder(3, 8, shuffle=False, drop_last=False, world_size=4)


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("drop_last", [True, False])
def test_resampled_epochs_are_as_long_as_others_and_the_ranks_together_see_them(world_size, drop_last):
    target = torch.tensor([0] * 30 + [1] * 7)

    def of(rank, size, epoch):
        order = BatchOrder(37, 8, shuffle=True, drop_last=drop_last, seed=2, rank=rank, world_size=size,
                           target=target, shares=[0.5, 0.5])  # fmt: skip
        return batches(order, epoch)

    alone, together = of(0, 1, 3), [of(rank, world_size, 3) for rank in range(world_size)]
    assert len(flat(alone)) == (32 if drop_last else 37)
    for global_batch, *shares in zip(alone, *together, strict=True):
        assert sorted(global_batch) == sorted(flat(shares))
    assert of(0, 1, 3) == alone != of(0, 1, 4)


# Loading


def test_a_loader_gives_inputs_and_targets_that_belong_to_the_index():
    data = splits()
    loader = TensorLoader(data.train, BatchOrder(37, 8, shuffle=True, drop_last=False))
    found = list(loader)
    assert len(found) == len(loader) == 5
    index = torch.cat([batch.index for batch in found])
    assert sorted(index.tolist()) == sorted(data.train.index.tolist())
    label = dict(zip(data.train.index.tolist(), data.train.target.tolist(), strict=True))
    for batch in found:
        assert torch.equal(batch.inputs, data.train.inputs[batch.index])
        assert batch.inputs.dtype == torch.uint8
        assert batch.target.tolist() == [label[i] for i in batch.index.tolist()]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_streamed_batches_are_those_of_tensors_in_every_epoch(num_workers):
    held, streamed = module(), module(splits(wrap=Images), num_workers=num_workers)
    loaders = []
    for data in (held, streamed):
        data.trainer = SimpleNamespace(
            global_rank=0,
            world_size=1,
            accumulate_grad_batches=1,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )
        loaders.append(data.train_dataloader())
    assert len(loaders[0]) == len(loaders[1])
    for epoch in (0, 1, 5):
        for loader in loaders:
            loader.sampler.set_epoch(epoch)
        for a, b in zip(*loaders, strict=True):
            assert torch.equal(a.inputs, b.inputs)
            assert torch.equal(a.target, b.target)
            assert torch.equal(a.index, b.index)


class Faulty(Images):
    """One of its samples cannot be read."""

    def __init__(self, tensor, fault):
        super().__init__(tensor)
        self.fault = fault

    def __getitem__(self, index):
        return self.fault() if index == 7 else super().__getitem__(index)


def broken():
    raise ValueError("dataset.source has the corrupt file 7.png")


FAULTS = {
    "killed": (
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        OSError,
        "dataset.num_workers=2: DataLoader worker .*exited",
    ),
    "silent": (
        lambda: time.sleep(1000),
        OSError,
        "dataset.num_workers=2: DataLoader timed out after 2 seconds; 0 reads",
    ),
    "broken": (broken, ValueError, "dataset.source has the corrupt file 7.png$"),
    "shape": (
        lambda: torch.zeros(2, 4, 3),
        ValueError,
        r"dataset.source must give samples of one shape, got \[\(2, 4, 3",
    ),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("fault", "kind", "message"), FAULTS.values(), ids=FAULTS)
def test_a_sample_that_a_worker_cannot_read_ends_the_epoch_with_one_line(monkeypatch, fault, kind, message):
    monkeypatch.setattr(loaders, "PATIENCE", 2)
    data = module(splits(wrap=lambda x: Faulty(x, fault)), num_workers=2)
    with pytest.raises(kind, match=f"^{message}") as error:
        list(data.eval_batches("train", "cpu"))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_without_workers_what_is_broken_is_the_same_line():
    with pytest.raises(ValueError, match=r"^dataset.source has the corrupt file 7.png$"):
        list(module(splits(wrap=lambda x: Faulty(x, broken))).eval_batches("train", "cpu"))


@pytest.mark.timeout(60)
def test_workers_need_no_shared_memory(monkeypatch):
    """Of /dev/shm a container has 64 MB, and a tensor that finds no room there is lost without a word."""

    def full(self):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
    monkeypatch.setattr(torch.UntypedStorage, "_share_filename_cpu_", full)
    held, streamed = (
        module(splits(wrap=wrap), num_workers=2).eval_batches("train", "cpu") for wrap in (lambda x: x, Images)
    )
    for a, b in zip(held, streamed, strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.target, b.target)
        assert torch.equal(a.index, b.index)


@pytest.mark.slow
def test_a_batch_that_is_larger_than_the_shared_memory_is_read(tmp_path):
    small = ["unshare", "-m", "bash", "-c", 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"', "-"]
    if subprocess.run([*small, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small /dev/shm")
    code = (
        "import torch\n"
        "from kdexp.contracts import Split, Splits\n"
        "from kdexp.data.data_module import DataModule\n"
        "class Images(list):\n"
        "    def __getitem__(self, index): return torch.full((3, 512, 512), index, dtype=torch.uint8)\n"
        "split = Split(Images(range(16)), torch.arange(16) % 2, torch.arange(16))\n"
        "data = DataModule(Splits(split, split, split), augment=[], mean=[0.0], std=[1.0], batch_size=8,\n"
        "                  eval_batch_size=8, drop_last=True, seed=0, num_workers=2)\n"
        "print([int(255 * image.mean() + 0.5) for b in data.eval_batches('val', 'cpu') for image in b.inputs])"
    )
    done = subprocess.run([*small, sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True,
                          timeout=120, check=True)  # fmt: skip
    assert done.stdout == f"{list(range(16))}\n"


def test_starting_a_stream_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(iter(module(splits(wrap=Images)).eval_batches("val", "cpu")))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("wrap", [lambda x: x, Images], ids=["held", "streamed"])
def test_a_resampled_loader_gives_inputs_and_targets_that_belong_to_the_samples_and_marks_copies(wrap):
    data = splits(wrap=wrap)
    source = module(data, shares=[0.8, 0.1, 0.1], drop_last=False)
    source.trainer = SimpleNamespace(
        global_rank=0,
        world_size=1,
        accumulate_grad_batches=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    found = list(source.train_dataloader())
    index = torch.cat([batch.index for batch in found])
    inputs, target = torch.cat([batch.inputs for batch in found]), torch.cat([batch.target for batch in found])
    assert torch.equal(inputs, pixels(60)[index % 60])
    assert torch.equal(target, index % 60 % 3)  # how `splits` labels its samples
    assert len(index) == len(set(index.tolist())) == 37
    assert set((index % 60).tolist()) <= set(data.train.index.tolist())
    assert index.max() >= 60


# What is done to batches


def normalised(inputs: np.ndarray) -> np.ndarray:
    mean, std = np.array([0.4, 0.6])[:, None, None], np.array([0.5, 0.25])[:, None, None]
    return (inputs / 255 - mean) / std


@pytest.mark.parametrize("wrap", [lambda x: x, Images], ids=["held", "streamed"])
@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_evaluation_sees_every_sample_once_in_order_normalised_and_not_augmented(name, wrap):
    data = splits(wrap=wrap)
    found = module(data).eval_batches(name, "cpu")
    assert len(list(found)) == len(found)
    split = getattr(data, name)
    assert torch.equal(torch.cat([batch.index for batch in found]), split.index)
    assert torch.equal(torch.cat([batch.target for batch in found]), split.target)
    inputs = torch.cat([batch.inputs for batch in found])
    assert inputs.dtype == torch.float32
    np.testing.assert_allclose(inputs, normalised(pixels(60)[split.index].numpy()), atol=1e-5)


def test_images_are_numbers_in_0_1_before_a_transform_that_does_more_than_move_them():
    transforms = [RandomCrop(1), Cutout(2, [0.3, 0.7]), HorizontalFlip()]
    split = splits().train
    wanted = Batch(split.inputs[split.index] / 255, split.target, split.index)
    for transform in transforms:
        wanted = transform(wanted, seed=3, epoch=5)
    found = module(augment=transforms).eval_batches("train", "cpu", view=5)
    inputs = torch.cat([batch.inputs for batch in found])
    np.testing.assert_allclose(inputs, normalised(255 * wanted.inputs.numpy()), rtol=1e-5, atol=1e-6)


def test_features_are_normalised_each_by_its_own_statistics():
    table = torch.randn(60, 5) * 3 + 1
    data = module(splits(inputs=table), augment=[], mean=[0.0, 1, 2, 3, 4], std=[1.0, 2, 3, 4, 5])
    inputs = torch.cat([batch.inputs for batch in data.eval_batches("test", "cpu")])
    np.testing.assert_allclose(inputs, (table[:9].numpy() - np.arange(5)) / np.arange(1, 6), rtol=1e-5, atol=1e-6)


def test_sequences_are_normalised_by_the_features_of_a_step():
    sequences = torch.randn(60, 7, 2)
    data = module(splits(inputs=sequences), augment=[], mean=[1.0, 2.0], std=[1.0, 4.0])
    inputs = torch.cat([batch.inputs for batch in data.eval_batches("test", "cpu")])
    np.testing.assert_allclose(inputs, (sequences[:9].numpy() - [1, 2]) / [1, 4], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mean": [0.1, 0.2, 0.3]}, r"dataset.mean must have 1 or 2 values for inputs \[2, 4, 4\], got 3"),
        ({"std": []}, r"dataset.std must have 1 or 2 values for inputs \[2, 4, 4\], got 0"),
        ({"std": [0.0, 1.0]}, r"dataset.std must be > 0, got \[0.0, 1.0\]"),
        ({"batch_size": 38}, r"dataset.batch_size must be at most the 37 training samples with dataset.drop_last=true"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused_at_once(changed, message):
    with pytest.raises(ValueError, match="^" + message):
        module(**changed)


def test_transforms_that_do_not_fit_the_data_are_refused_at_once():
    with pytest.raises(ValueError, match=r"^dataset.mean must have 1 value for inputs \[1, 4, 4\], got 2"):
        module(splits(inputs=torch.zeros(60, 1, 4, 4)), augment=[], mean=[0.1, 0.2], std=[1.0])
    with pytest.raises(ValueError, match=r"^augment: RandomCrop needs images"):
        module(splits(inputs=torch.zeros(60, 5)), mean=[0.0], std=[1.0])


# Under a Trainer


class Recorder(pl.LightningModule):
    """Notes what reaches it; a step moves its weight by what the batch holds."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_batches: dict[int, list[Batch]] = {}
        self.val_batches: dict[int, list[Batch]] = {}

    def training_step(self, batch, batch_idx):
        self.train_batches.setdefault(self.current_epoch, []).append(batch)
        return self.weight * batch.inputs.mean()

    def validation_step(self, batch, batch_idx):
        self.val_batches.setdefault(self.current_epoch, []).append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: DataModule, epochs: int, folder=None, ckpt_path=None, **settings) -> Recorder:
    recorder = Recorder()
    keeper = [ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=True)] if folder else []
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, callbacks=keeper, enable_checkpointing=bool(folder),
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        **settings,
    )  # fmt: skip
    trainer.fit(recorder, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return recorder


@pytest.mark.parametrize("wrap", [lambda x: x, Images], ids=["held", "streamed"])
def test_a_trainer_gets_each_epochs_order_and_augmentation(wrap):
    data = splits(wrap=wrap)
    recorder = fit(module(data), 3)
    held = pixels(60)
    for epoch in range(3):
        order = BatchOrder(37, 8, shuffle=True, drop_last=True, seed=3)
        order.set_epoch(epoch)
        for positions, batch in zip(order, recorder.train_batches[epoch], strict=True):
            index = data.train.index[positions]
            assert torch.equal(batch.index, index)
            plain = Batch(held[index].float() / 255, batch.target, index)
            for transform in (RandomCrop(1), HorizontalFlip()):
                plain = transform(plain, seed=3, epoch=epoch)
            expected = normalised(plain.inputs.numpy() * 255)
            np.testing.assert_allclose(batch.inputs, expected, atol=1e-5)
        index = torch.cat([batch.index for batch in recorder.val_batches[epoch]])
        assert torch.equal(index, data.val.index)
        inputs = torch.cat([batch.inputs for batch in recorder.val_batches[epoch]])
        np.testing.assert_allclose(inputs, normalised(held[index].numpy()), atol=1e-5)


@pytest.mark.parametrize("wrap", [lambda x: x, Images], ids=["held", "streamed"])
@pytest.mark.parametrize(("limit", "size"), [(None, 30), (1.0, 30), (1, 10), (0.4, 10)])
def test_a_limited_validation_sees_all_classes_in_their_shares_though_the_samples_are_sorted(wrap, limit, size):
    index = torch.arange(30)
    data = replace(splits(wrap=wrap), val=Split(wrap(pixels(60)), index // 10, index))
    (batches,) = fit(module(data, eval_batch_size=10), 1, limit_val_batches=limit).val_batches.values()
    target, found = torch.cat([batch.target for batch in batches]), torch.cat([batch.index for batch in batches])
    assert torch.equal(target, found // 10)
    if size == 30:
        assert torch.equal(found, index)
    else:
        assert len(found) == size
        assert sorted(target.bincount(minlength=3).tolist()) == [3, 3, 4]


@pytest.mark.parametrize("wrap", [lambda x: x, Images], ids=["held", "streamed"])
def test_copies_of_a_sample_have_its_index_and_are_augmented_each_in_its_own_way(wrap):
    index = torch.arange(60)
    train = Split(wrap(pixels(60)), (index == 0).long(), index)
    data = replace(splits(wrap=wrap), train=train)
    recorder = fit(module(data, shares=[0.5, 0.5], batch_size=20), 2)
    for epoch in range(2):
        seen = recorder.train_batches[epoch]
        inputs, found = torch.cat([batch.inputs for batch in seen]), torch.cat([batch.index for batch in seen])
        assert int((found == 0).sum()) == 30
        assert found.max() < 60
        assert all(torch.equal(batch.target, (batch.index == 0).long()) for batch in seen)
        # A shift of up to one pixel and a mirror: 18 ways, of which 30 draws miss some, but not most.
        assert len(inputs[found == 0].unique(dim=0)) >= 9


def test_a_class_that_cannot_be_drawn_is_found_out_at_once():
    data = splits()
    target = torch.where(data.train.target == 2, UNLABELED, data.train.target)
    with pytest.raises(
        ValueError, match=r"^dataset.class_sampling must find labelled samples .*, got none of class 2$"
    ):
        module(replace(data, train=replace(data.train, target=target)), shares=[0.2, 0.3, 0.5])


def test_evaluation_is_not_resampled():
    data = splits()
    for name in ("train", "val", "test"):
        found = module(data, shares=[0.8, 0.1, 0.1]).eval_batches(name, "cpu")
        assert torch.equal(torch.cat([batch.index for batch in found]), getattr(data, name).index)


@pytest.mark.parametrize("wrap", [lambda x: x, Images], ids=["held", "streamed"])
def test_a_run_resumed_in_a_fresh_trainer_goes_on_with_the_next_epochs_batches(tmp_path, wrap):
    whole = fit(module(splits(wrap=wrap)), 4)
    fit(module(splits(wrap=wrap)), 2, tmp_path)
    resumed = fit(module(splits(wrap=wrap)), 4, tmp_path, ckpt_path=tmp_path / "last.ckpt")
    assert list(resumed.train_batches) == [2, 3]
    for epoch in (2, 3):
        for a, b in zip(whole.train_batches[epoch], resumed.train_batches[epoch], strict=True):
            assert torch.equal(a.index, b.index)
            assert torch.equal(a.inputs, b.inputs)
    assert torch.equal(whole.weight, resumed.weight)


@pytest.mark.gpu
@pytest.mark.parametrize("wrap", [lambda x: x, Images], ids=["held", "streamed"])
def test_a_gpu_gets_the_same_batches(gpu, wrap):
    there, here = (list(module(splits(wrap=wrap)).eval_batches("train", device)) for device in ("cuda", "cpu"))
    for a, b in zip(there, here, strict=True):
        assert a.inputs.is_cuda
        torch.testing.assert_close(a.inputs.cpu(), b.inputs)
        assert torch.equal(a.index.cpu(), b.index)


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_wait_in_pinned_memory_for_a_gpu(gpu, workers):
    loader = module(splits(wrap=Images), num_workers=workers)._loader("train", torch.device("cuda"))
    found = list(loader)
    assert found
    for batch in found:
        assert all(tensor.is_pinned() for tensor in (batch.inputs, batch.target, batch.index))
