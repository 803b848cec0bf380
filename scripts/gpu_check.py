"""Whether kdexp works on a GPU, and how fast: the tests marked gpu, then ratios that are taken in one run.

    bash scripts/gpu_check.sh [--scale cpu] [--out gpu_check.json]

Made for eight minutes on a GPU: what cannot begin in time is left out, and said. Each ratio is of a step in kdexp and
of one in a loop written by hand: bf16, compiled, channels last, the data on the device. Written: all of it as one JSON,
and the rows of docs/benchmarks.md, which are printed, too. `--scale cpu` does the same with small networks in about two
minutes, on any machine, so that it is known to work; `--scale smallest` is what the tests of kdexp run.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch
from bench_fused import seconds_of_steps
from bench_loader import SAMPLES, kdexp_loader, seconds
from bench_memory import resident
from timing import Work, machine, now, row

from kdexp.sweeps import memory

log = logging.getLogger(__name__)
ROOT = Path(__file__).parents[1]
LATEST = 400
"""Seconds after which nothing more is begun, so that all ends within eight minutes."""


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        settings: of conf/trainer.
        pairs: teacher and student, as conf/ names them; the first one's students are fused, and its memory is measured.
        shape: of an image.
        steps: of an epoch.
        epochs: that are measured, after one that warms up.
        backends: of fused students, see `kdexp.sweeps.step_backends`.
        students: that are fused.
        tests: what pytest is to select.
        seconds: that the tests may take.
    """

    settings: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    shape: tuple[int, int, int]
    steps: int
    epochs: int
    backends: tuple[str, ...]
    students: int
    tests: str
    seconds: int


HALF = ("trainer.precision=bf16-mixed", "trainer.channels_last=true")
SCALES = {
    "gpu": Scale(
        settings=(*HALF, "trainer.accelerator=gpu", "trainer.compile=true"),
        pairs=(("resnet32x4", "resnet8x4"), ("resnet56", "resnet20")),
        shape=(3, 32, 32), steps=100, epochs=5, backends=("loop", "streams", "vmap"), students=8,
        tests="gpu", seconds=240,
    ),
    "cpu": Scale(
        settings=(*HALF, "trainer.accelerator=cpu", "trainer.compile=true"),
        pairs=(("cnn", "cnn_small"),),
        shape=(3, 32, 32), steps=10, epochs=3, backends=("loop", "streams", "vmap"), students=2,
        tests="gpu", seconds=240,
    ),
    "smallest": Scale(
        settings=("trainer.accelerator=cpu",),
        pairs=(("cnn", "cnn_small"),),
        shape=(1, 8, 8), steps=6, epochs=2, backends=("loop", "vmap"), students=2,
        tests="gpu and not slow", seconds=60,
    ),
}  # fmt: skip


def tests(scale: Scale) -> dict[str, object]:
    """The outcome of each of the tests: passed, failed, or why it was skipped."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", scale.tests]
        command += [f"--junitxml={report}", f"--basetemp={folder}/tests", *map(str, files)]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        try:
            subprocess.run(command, cwd=ROOT, check=False, env=env, timeout=scale.seconds, stdout=sys.stderr)
        except subprocess.TimeoutExpired:
            return {"failed": {f"all of them within {scale.seconds} s": "they were stopped"}}
        if not report.is_file():
            return {"failed": {"all of them": "pytest ended without a report"}}
        cases = list(ElementTree.parse(report).iter("testcase"))
    found: dict[str, object] = {"passed": [], "skipped": {}, "failed": {}}
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        ends = {end.tag: (end.get("message") or "").partition("\n")[0] for end in case if end.tag in ENDS}
        for tag, message in ends.items():
            found[ENDS[tag]][name] = message
        if not ends:
            found["passed"].append(name)
    return found


ENDS = {"skipped": "skipped", "failure": "failed", "error": "failed"}


class Check:
    """What is measured, one after the other, until the time is up.

    Args:
        scale: how large everything is.
        until: of `time.monotonic`, when nothing more is begun.

    Attributes:
        rows: of docs/benchmarks.md.
        found: the same as numbers, in seconds or bytes.
        errors: what could not be measured, and why.
    """

    def __init__(self, scale: Scale, until: float) -> None:
        self.scale, self._until = scale, until
        self.device = torch.device("cuda" if "trainer.accelerator=gpu" in scale.settings else "cpu")
        self.rows: list[str] = []
        self.found: list[dict[str, object]] = []
        self.errors: dict[str, str] = {}
        self._bare: dict[tuple[str, str], list[float]] = {}

    def run(self) -> None:
        """Measure everything."""
        for pair in self.scale.pairs:
            with self._work(pair) as work:
                self._steps(pair, work)
        pair, students = self.scale.pairs[0], self.scale.students
        self.part(f"a batch of the loader, cropped and flipped / a step of {pair[1]} alone", self.loader,
                  lambda: self._bare[(*pair, "alone")])  # fmt: skip
        with self._work(pair, "teacher.weights=built", "trainer.compile=false") as work:
            for backend in self.scale.backends:
                self.part(
                    f"{students} fused students ({backend}), not compiled / as many bare loops, online",
                    lambda backend=backend: self._medians(seconds_of_steps(work, students, backend)),
                    lambda: [students * seconds for seconds in self._bare[(*pair, "online")]],
                )
        self.part(f"{' -> '.join(pair)}, online, peak memory in MB: with feature_loss=at / without",
                  lambda: self.peak("feature_loss=[at]"), self.peak, unit=1e-6)  # fmt: skip

    def _medians(self, values: list[float]) -> list[float]:
        """As many as there are epochs of the bare loop."""
        return [statistics.median(values[start :: self.scale.epochs]) for start in range(self.scale.epochs)]

    def _steps(self, pair: tuple[str, str], work: Work) -> None:
        """Seconds of a step of a pair, in each of its ways."""
        name, count = " -> ".join(pair), 1 + self.scale.epochs

        def kdexp(*settings: str, alone: bool = False) -> list[float]:
            clock = work.clock(f"trainer.max_epochs={count}", *settings, alone=alone)
            return [(end - start) / work.steps for start, end in zip(clock[::2], clock[1::2], strict=True)][1:]

        def bare(way: str) -> list[float]:
            if (*pair, way) not in self._bare:
                epochs = work.bare_epochs(count, alone=way == "alone")
                self._bare[(*pair, way)] = [seconds / work.steps for seconds in epochs[1:]]
            return self._bare[(*pair, way)]

        # An untrained teacher's logits can be more than fp16 holds.
        cache = ("teacher.cache=unaugmented", "teacher.cache_precision=fp32")
        self.part(f"{name}, cached teacher outputs / student alone", lambda: kdexp(*cache), lambda: bare("alone"))
        self.part(f"{name}, student alone", lambda: kdexp(alone=True), lambda: bare("alone"))
        # Last: the teacher is compiled for it, and stays so.
        self.part(f"{name}, online", kdexp, lambda: bare("online"))

    @contextmanager
    def _work(self, pair: tuple[str, str], *settings: str) -> Iterator[Work]:
        scale = self.scale
        classes = 10 if scale.shape[0] == 1 else 100
        every = (*scale.settings, *settings)
        work = Work(pair[1], pair[0], scale.steps, shape=scale.shape, classes=classes, settings=every)
        yield work
        work.remove()

    def part(
        self, what: str, ours: Callable[[], list[float]], other: Callable[[], list[float]], unit: float = 1e3
    ) -> None:
        """Measure one row; what fails or comes too late is named and leaves the rest alone."""
        if time.monotonic() > self._until:
            self.errors[what] = f"left out, it would have begun more than {LATEST} s after the start"
            return
        try:
            one, two = ours(), other()
        except Exception as error:
            log.exception(what)
            self.errors[what] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            return
        ratios = sorted(a / b for a, b in zip(one, two, strict=True))
        middle = {"kdexp": statistics.median(one), "bare": statistics.median(two), "ratio": statistics.median(ratios)}
        self.found.append({"what": what, **middle, "lowest": ratios[0], "highest": ratios[-1]})
        self.rows.append(row(what, one, two, unit))
        print(self.rows[-1], flush=True)

    def loader(self) -> list[float]:
        """Seconds of a batch of 64 of the loader, on the device."""
        data, found = kdexp_loader(64), []
        for _ in range(1 + self.scale.epochs):
            started = now(self.device)
            seconds(data.eval_batches("train", self.device, view=0))
            found.append((now(self.device) - started) / (SAMPLES // 64))
        return found[1:]

    def peak(self, *settings: str) -> list[float]:
        """Bytes of the GPU, or of this process, at most while a pair is trained."""
        with self._work(self.scale.pairs[0], "trainer.compile=false", *settings) as work:
            before = torch.cuda.memory_allocated() if self.device.type == "cuda" else 1e6 * resident()
            taken = memory.peak_of(work.kdexp, self.device)
        if taken is None:
            raise RuntimeError("this system does not say how much memory a process takes")
        return [before + taken]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", choices=list(SCALES), default="gpu")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="the JSON that is written")
    given = parser.parse_args()
    if given.scale == "gpu" and not torch.cuda.is_available():
        print("error: there is no GPU here; --scale cpu runs all of it on the CPU", file=sys.stderr)
        sys.exit(2)
    started, scale = time.monotonic(), SCALES[given.scale]
    tested = tests(scale)
    head = "| step | kdexp, ms | bare loop, ms | ratio | rounds |\n|---|---|---|---|---|"
    print(f"\n{machine()}\n\n{head}", flush=True)
    check = Check(scale, started + LATEST)
    try:
        check.run()
    except Exception as error:  # what was found until then is kept
        log.exception("the rest")
        check.errors["the rest"] = repr(error)
    took = time.monotonic() - started
    written = {"scale": given.scale, "machine": machine(), "gpus": torch.cuda.device_count(), "seconds": took,
               "tests": tested, "ratios": check.found, "rows": check.rows, "errors": check.errors}  # fmt: skip
    given.out.write_text(json.dumps(written, indent=1) + "\n")
    counts = ", ".join(f"{len(tested.get(end, ()))} {end}" for end in ("passed", "skipped", "failed"))
    print(f"\ntests: {counts}; {took:.0f} s; written: {given.out}")
    for what, why in {**tested["failed"], **check.errors}.items():
        print(f"not well: {what}: {why}", file=sys.stderr)
    sys.exit(bool(tested["failed"] or check.errors))


if __name__ == "__main__":
    main()
