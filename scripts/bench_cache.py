"""What a sweep over alpha and the temperature costs with cached teacher outputs, against running the teacher each time.

    python scripts/bench_cache.py [--teacher resnet56] [--student resnet20] [--steps 4] [--epochs 6]

Twelve runs (alpha in 0.1, 0.5, 0.9; T in 1, 2, 4, 8) of whole runs: data, teacher, training, validation
and the last evaluation on val and test. Uncached, each runs the teacher; with `teacher.cache=views:2` the first run
fills it and all read. As many epochs as views would gain from sharing alone; more epochs gain from the views as well.
Each of the twelve is run in turn with both, from an empty store.
"""

import argparse
import shutil
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from timing import machine, row

from kdexp.config.compose import compose
from kdexp.experiment.run import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--teacher", default="resnet56")
    parser.add_argument("--student", default="resnet20")
    parser.add_argument("--steps", type=int, default=4, help="of an epoch, of 64 samples")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--views", type=int, default=2)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    settings = [
        "experiment=smoke", "tracking=none", "augment=crop_flip", "optimizer=sgd", f"teacher={arguments.teacher}",
        f"student={arguments.student}", "dataset.input_shape=[3,32,32]", "dataset.mean=[0.5,0.5,0.5]",
        "dataset.std=[0.25,0.25,0.25]", f"trainer.max_epochs={arguments.epochs}", "teacher.recipe.max_epochs=1",
        f"dataset.source.train_samples={arguments.steps * 64 + 32}", "dataset.source.test_samples=32",
        f"dataset.val_fraction={32 / (arguments.steps * 64 + 32)}", "trainer.gradient_stats_every_n_steps=0",
    ]  # fmt: skip

    def seconds(name: str, *more: str) -> float:
        config = compose([*settings, *more], output_dir=folder / name, store_dir=folder / "store")
        started = time.perf_counter()
        with redirect_stdout(StringIO()):
            run(config)
        shutil.rmtree(folder / name)
        return time.perf_counter() - started

    seconds("teacher", "trainer.max_epochs=1")  # trains the teacher; not counted
    online, cached = [], []
    for alpha in (0.1, 0.5, 0.9):
        for temperature in (1, 2, 4, 8):
            point = (f"alpha={alpha}", f"temperature={temperature}")
            online.append(seconds("online", *point, f"augment.views={arguments.views}"))
            cached.append(seconds("cached", *point, f"teacher.cache=views:{arguments.views}"))
    shutil.rmtree(folder)
    print(machine(), f"\n{arguments.epochs} epochs of {arguments.steps} steps of 64, {arguments.views} views\n")
    print("| sweep of 12 | cached teacher outputs, s | online, s | ratio | its runs |\n|---|---|---|---|---|")
    runs = [a / b for a, b in zip(cached, online, strict=True)]
    total = row(f"{arguments.teacher} -> {arguments.student}", [sum(cached)], [sum(online)], 1).rsplit("|", 2)[0]
    print(f"{total}| {min(runs):.2f} to {max(runs):.2f} (the first fills) |")


if __name__ == "__main__":
    main()
