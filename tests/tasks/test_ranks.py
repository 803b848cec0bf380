"""Two ranks that count different numbers of rows learn what one process with both batches does."""

import os

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdexp.contracts import ABSENT, UNLABELED, Batch, Outputs
from kdexp.losses.dist import DIST
from kdexp.losses.kd import KD
from kdexp.losses.mlkd import MLKD
from kdexp.tasks.classification import Classification
from kdexp.tasks.segmentation import Segmentation

RANKS, N, CHANNELS, CLASSES = 2, 6, 5, 4


def mask(*rows_that_exist):
    """(N, 4, 4), of which the first rows of pixels of each image exist."""
    target = torch.randint(CLASSES, (N, 4, 4), generator=torch.Generator().manual_seed(1))
    for image, rows in enumerate(rows_that_exist):
        target[image, rows:] = ABSENT
    return target


def mixed():
    """(N, C), as after mixup with samples without a label."""
    return torch.rand(N, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(1) * torch.tensor(
        [[1.0], [0.3], [1.0], [0.0], [0.0], [1.0]]
    )


ROW = (N, CHANNELS)
MAP = (N, CHANNELS, 4, 4)
# Samples go to the ranks in turns: the second rank has those with an odd number.
CASES = {
    "labels hidden": (Classification(CLASSES), ROW, torch.tensor([0, UNLABELED, 2, UNLABELED, 3, 1])),
    "no label on one rank": (Classification(CLASSES), ROW, torch.tensor([0, UNLABELED, 2, UNLABELED, 3, UNLABELED])),
    "mixup": (Classification(CLASSES), ROW, mixed()),
    "masks": (Segmentation(CLASSES), MAP, mask(4, 1, 3, 2, 4, 1)),
    "no pixel on one rank": (Segmentation(CLASSES), MAP, mask(4, 0, 3, 0, 4, 0)),
    "no label in some masks": (
        Segmentation(CLASSES),
        MAP,
        mask(4, 1, 3, 2, 4, 1).where(torch.tensor([1, 0, 1, 0, 1, 1]).view(N, 1, 1) > 0, UNLABELED),
    ),
}
LOSSES = {"kd": KD(2.0), "dist": DIST(), "mlkd": MLKD()}


def network(shape):
    torch.manual_seed(0)
    return (nn.Linear(CHANNELS, CLASSES) if len(shape) == 2 else nn.Conv2d(CHANNELS, CLASSES, 1)).double()


def gradients(case, loss, rank=None):
    """Of the hard and of the soft term: of one rank's samples after DDP has taken its mean, or of all samples."""
    task, shape, target = CASES[case]
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    teacher = torch.randn((N, CLASSES, *shape[2:]), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    own = slice(None) if rank is None else slice(rank, None, RANKS)
    batch = Batch(inputs[own], target[own].double() if target.is_floating_point() else target[own])
    found = []
    for term in ("hard", "soft"):
        model = network(shape) if rank is None else DistributedDataParallel(network(shape))
        student = Outputs(model(batch.inputs))
        value = (
            task.hard(student, batch)
            if term == "hard"
            else task.soft(LOSSES[loss], student, Outputs(teacher[own]), batch)
        )
        value.backward()
        found.append([parameter.grad for parameter in model.parameters()])
    return found


def process(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    torch.save({(c, n): gradients(c, n, rank) for c in CASES for n in LOSSES}, f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()
    os._exit(0)  # https://github.com/pytorch/pytorch/pull/179291, as in tests/losses/test_all_gather.py


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory):
    """What each rank found."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.start_processes(process, (str(folder),), nprocs=RANKS, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", CASES)
def test_ranks_learn_what_one_process_does(of_ranks, case, loss):
    for found in of_ranks:
        for term, whole in zip(found[case, loss], gradients(case, loss), strict=True):
            for gradient, own in zip(term, whole, strict=True):
                torch.testing.assert_close(gradient, own, rtol=1e-5, atol=1e-8)
