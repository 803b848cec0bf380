"""CPU time of the parts of a step of the smallest student: where the floor of its ratio is.

OMP_NUM_THREADS=1 python scripts/bench_step_breakdown.py
"""

import time
from collections.abc import Callable

import torch
from timing import Work, machine
from torch.nn import functional as F

from kdexp.losses.cross_entropy import cross_entropy
from kdexp.losses.kd import kd
from kdexp.metrics.classification import Metrics


def microseconds(part: Callable[[], object], calls: int = 400) -> float:
    """The best of five means."""
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        for _ in range(calls):
            part()
        best = min(best, (time.process_time() - started) / calls)
    return best * 1e6


def main() -> None:
    work = Work("mlp student.hidden=[16]", "mlp teacher.hidden=[64]", 600, shape=(1, 8, 8), classes=10)
    split, teacher = work.data.student.splits.train, work.teacher
    order = torch.randperm(len(split.index))[:64]
    images, target = (split.inputs[split.index[order]] / 255 - 0.5) / 0.25, split.target[order]
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
    logits = network(images)
    wanted, many = teacher(images).logits, torch.cat([logits.detach()] * 64)
    plain, fused = (torch.optim.SGD(network.parameters(), 0.05, 0.9, weight_decay=5e-4, fused=f) for f in (False, True))
    accuracy = Metrics("multiclass", 10, accuracy_only=True)

    def bare_kl(logits: torch.Tensor) -> torch.Tensor:
        student, answer = F.log_softmax(logits / 4, 1), F.log_softmax(wanted / 4, 1)
        return 16 * F.kl_div(student, answer, reduction="batchmean", log_target=True)

    def bare_both() -> torch.Tensor:
        logits = network(images)
        return 0.1 * F.cross_entropy(logits, target) + 0.9 * bare_kl(logits)

    @torch.no_grad()
    def bare_teacher() -> torch.Tensor:
        return teacher.networks[0](images)

    parts = {
        "gather and normalise, bare": lambda: (split.inputs[split.index[order]].float() / 255 - 0.5) / 0.25,
        "forward, cross entropy, backward, bare": lambda: F.cross_entropy(network(images), target).backward(),
        "forward, cross entropy, backward, kdexp": lambda: cross_entropy(
            network(images), target, kind="multiclass"
        ).backward(),
        "forward, KL, backward, bare": lambda: bare_kl(network(images)).backward(),
        "forward, both, backward, bare": lambda: bare_both().backward(),
        "forward, KL, backward, kdexp": lambda: kd(network(images), wanted, 4.0).backward(),
        "teacher, bare": bare_teacher,
        "teacher, kdexp, two blocks of 32": lambda: teacher(images),
        "SGD": plain.step,
        "SGD, fused": fused.step,
        "accuracy of a batch": lambda: accuracy.update(logits, target),
        "accuracy of 64 batches at once": lambda: accuracy.update(many, target.repeat(64)),
    }
    print(machine(), "\n\n| part of a step, 64-16-10 MLP, batches of 64 | µs of CPU |\n|---|---|")
    for name, part in parts.items():
        print(f"| {name} | {microseconds(part):.0f} |", flush=True)
    work.remove()


if __name__ == "__main__":
    main()
