"""Online distillation in kdexp against torchdistill, on the same work.

    python scripts/bench_torchdistill.py [--rounds 5]

The same networks and initial weights, the same uint8 images with crop and flip, batches of 64, SGD with momentum, alpha
0.1, T = 4, float32. torchdistill runs its own distillation box and loss over its usual pipeline, a DataLoader of PIL
images with torchvision's transforms, with a worker process a core or without, whichever is faster. kdexp is measured as
it is and with trainer.channels_last=false, the memory format of torchdistill's networks. torchdistill is installed
without its dependencies (they are kdexp's too) into a folder that is removed afterwards.
"""

import argparse
import copy
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

import torch
from bench_loader import Pictures
from timing import Work, in_turn, machine, row
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

from kdexp.experiment.experiment import Experiment

CASES = {
    "cnn -> cnn_small": ("cnn_small", "cnn", 20),
    "resnet32 -> resnet8": ("resnet8", "resnet32", 8),
    "resnet56 -> resnet20": ("resnet20", "resnet56", 4),
}


class Labelled(Dataset):
    """Samples as torchdistill wants them: with their label and a dict of anything else."""

    def __init__(self, pictures: Pictures, target: torch.Tensor) -> None:
        self.pictures, self.target = pictures, target

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int):
        return self.pictures[index][0], int(self.target[index]), {}


def torchdistill_epoch(work: Work, workers: int) -> float:
    """Seconds of an epoch in torchdistill."""
    from torchdistill.core.distillation import DistillationBox

    loss = {"student_module_path": ".", "student_module_io": "output", "teacher_module_path": ".",
            "teacher_module_io": "output", "temperature": 4.0, "alpha": 0.1, "reduction": "batchmean"}  # fmt: skip
    recipe = {
        "num_epochs": 1,
        "teacher": {"sequential": [], "forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"sequential": [], "forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {
            "kd": {"criterion": {"key": "KDLoss", "kwargs": loss}, "weight": 1.0}}}},
    }  # fmt: skip
    teacher, student = copy.deepcopy(work.teacher.networks[0]), Experiment(work.config).new_student(pretrained=None)
    box = DistillationBox(teacher, student, {}, recipe, torch.device("cpu"), None, False, 1.0)
    teacher.eval()
    split = work.data.student.splits.train
    images = Compose([RandomCrop(32, 4), RandomHorizontalFlip(), ToTensor(), Normalize([0.5] * 3, [0.25] * 3)])
    samples = Labelled(Pictures(split.inputs[split.index], images), split.target)
    loader = DataLoader(samples, work.batch, shuffle=True, drop_last=True, num_workers=workers,
                        collate_fn=lambda items: (*default_collate([item[:2] for item in items]), {}))  # fmt: skip
    started = time.perf_counter()
    box.pre_epoch_process(epoch=0)
    for batch, target, more in loader:
        loss = box.forward_process(batch, target, more)
        box.post_forward_process(loss)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", folder, "torchdistill"], check=True, stderr=subprocess.DEVNULL)
        sys.path.append(folder)
        logging.disable(logging.INFO)
        warnings.simplefilter("ignore")
        print(
            machine(), "\n\n| online | torchdistill, ms/step | kdexp, ms/step | ratio | rounds |\n|---|---|---|---|---|"
        )
        for name, (student, teacher, steps) in CASES.items():
            work = Work(student, teacher, steps)
            found = in_turn(
                arguments.rounds,
                kdexp=lambda work=work: work.kdexp("augment=crop_flip", "trainer.channels_last=auto"),
                nchw=lambda work=work: work.kdexp("augment=crop_flip"),
                inline=lambda work=work: torchdistill_epoch(work, 0),
                workers=lambda work=work: torchdistill_epoch(work, torch.get_num_threads()),
            )
            theirs = min(found["inline"], found["workers"], key=statistics.median)
            print(row(name, theirs, found["kdexp"], 1e3 / steps))
            print(row(f"{name}, channels_last=false", theirs, found["nchw"], 1e3 / steps), flush=True)
            work.remove()


if __name__ == "__main__":
    main()
