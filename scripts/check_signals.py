"""Stop runs and sweeps by signals, many times, and see that each ends in time, says so, and resumes to the same bits.

    python scripts/check_signals.py --repeats 20 ddp joblib fused
    python scripts/check_signals.py --repeats 20 --kinds rank1 ddp

Kinds: ``group``: SIGTERM to the process group, as `timeout` and a container send it; ``all``: to every process of the
session, as SLURM does; ``staggered``: the same in random order, up to a second apart; ``rank1``: to rank 1 alone.
The moment is random: one half of the times in the middle of the student's training, the others anywhere.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SCRIPTS = Path(sys.executable).parent
SMOKE = ("experiment=smoke", "tracking=none", "student.dropout=0.3")
COMMANDS = {
    "ddp": (*SMOKE, "trainer=ddp_cpu", "trainer.max_epochs=12", "hydra.run.dir=run/0"),
    "ddp_sweep": ("-m", *SMOKE, "seed=0,1", "trainer=ddp_cpu", "trainer.max_epochs=6", "hydra.sweep.dir=run"),
    "joblib": ("-m", *SMOKE, "seed=0,1,2", "trainer.max_epochs=40", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
               "hydra.sweep.dir=run"),
    "fused": ("-m", *SMOKE, "seed=0,1,2", "trainer.max_epochs=40", "hydra/launcher=fused", "hydra.sweep.dir=run"),
}  # fmt: skip
KINDS = {
    "ddp": ("group", "all", "staggered", "rank1"),
    "ddp_sweep": ("group", "all"),
    "joblib": ("group", "all"),
    "fused": ("group", "all"),
}
LIMIT_SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="+", choices=COMMANDS)
    parser.add_argument("--kinds", nargs="+", help="group, all, staggered, rank1; all that make sense unless given")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="SIGTERM", help="SIGTERM, SIGHUP or SIGINT")
    given = parser.parse_args()
    failed = False
    for scenario in given.scenarios:
        with tempfile.TemporaryDirectory() as folder:
            failed |= not check(scenario, Path(folder), given)
    sys.exit(int(failed))


def check(scenario: str, folder: Path, given: argparse.Namespace) -> bool:
    """All repeats of a scenario; True when all of them were as they should be."""
    moment = random.Random(given.seed)
    (folder / "whole").mkdir()
    started = time.monotonic()
    with start(scenario, folder / "whole", folder / "store") as process:
        output, _ = process.communicate()
    assert process.returncode == 0, output
    # Once more, for the time that it takes when the teacher is there.
    whole, seconds = outcome(folder / "whole"), time.monotonic() - started
    good = True
    for kind in given.kinds or KINDS[scenario]:
        found: Counter[str] = Counter()
        took, faults = [], []
        for turn in range(given.repeats):
            place = folder / f"{kind}-{turn}"
            place.mkdir()
            in_training = turn % 2 == 0
            fault, lasted, status = once(scenario, kind, place, folder / "store", moment,
                                         None if in_training else moment.uniform(0, seconds),
                                         whole, signal.Signals[given.signal])  # fmt: skip
            found[status] += 1
            took.append(lasted)
            faults += [f"  {place.name}: {fault}"] if fault else []
        print(f"{scenario} {kind}: {given.repeats - len(faults)} of {given.repeats} good, {dict(found)}, "
              f"seconds to the end: median {sorted(took)[len(took) // 2]:.1f}, most {max(took):.1f}", *faults,
              sep="\n", flush=True)  # fmt: skip
        good &= not faults
    return good


def once(
    scenario: str,
    kind: str,
    folder: Path,
    store: Path,
    moment: random.Random,
    delay: float | None,
    whole: dict[str, bytes],
    number: signal.Signals,
) -> tuple[str, float, str]:
    """Stop a command once and resume it.

    Returns:
        What was wrong, or nothing; the seconds that it took to end; the statuses that it left.
    """
    process = start(scenario, folder, store)
    if delay is None:
        epochs = moment.randint(1, 6)
        wait(lambda: process.poll() is not None or most_epochs(folder) >= epochs, 120)
        delay = moment.uniform(0, 0.2)
    wait(lambda: process.poll() is not None, delay)
    if kind == "rank1":
        wait(lambda: process.poll() is not None or ranks(process.pid), 120)
    was_over = process.poll() is not None
    begun = time.monotonic()
    send(kind, process.pid, moment, number)
    ended = wait(lambda: process.poll() is not None and not members(process.pid), LIMIT_SECONDS + 20)
    lasted = time.monotonic() - begun
    left = members(process.pid)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate()
    code = process.returncode
    found = statuses(folder)
    text = "+".join(f"{count} {status}" for status, count in sorted(Counter(found).items())) or "no results.json"
    faults = []
    if was_over:
        return "", 0.0, "was over"
    finished = code == 0 and set(found) == {"completed"}  # at the very moment
    if not ended:
        faults.append(f"did not end, {len(left)} processes left")
    wanted = 130 if number == signal.SIGINT else 143
    if code not in (wanted, -number) and not finished:  # a shell shows both as 128 + number
        faults.append(f"exit code {code}")
    if lasted > LIMIT_SECONDS:
        faults.append(f"took {lasted:.1f} s")
    if not set(found) <= {"interrupted", "completed"}:
        faults.append(f"left {text}")
    if "Traceback" in output or "Error" in output:
        faults.append(f"said {output[-600:]!r}")
    command = ("resume=run/0",) if scenario == "ddp" and found else COMMANDS[scenario]
    again = run(command, folder, store)
    if again.returncode:
        faults.append(f"resumed with exit code {again.returncode}: {again.stdout[-600:]!r}")
    elif outcome(folder) != whole:
        faults.append("other bits after resuming")
    return "; ".join(faults), lasted, text


def environment(store: Path) -> dict[str, str]:
    return os.environ | {"KDEXP_STORE_DIR": str(store), "OMP_NUM_THREADS": "1"}


def start(scenario: str, folder: Path, store: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [SCRIPTS / "kdexp-train", *COMMANDS[scenario]], cwd=folder, env=environment(store), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def run(arguments: tuple[str, ...], folder: Path, store: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPTS / "kdexp-train", *arguments], cwd=folder, env=environment(store), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)  # fmt: skip


def wait(condition: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def send(kind: str, leader: int, moment: random.Random, number: signal.Signals) -> None:
    if kind == "group":
        os.killpg(leader, number)
        return
    pids = ranks(leader)[-1:] if kind == "rank1" else members(leader)
    moment.shuffle(pids)
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        if kind == "staggered":
            time.sleep(moment.uniform(0, 1))


def members(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *_, own = path.read_text().rpartition(") ")[2].split()[:4]
        except OSError:
            continue
        if int(own) == session and state != "Z":
            found.append(int(path.parent.name))
    return found


def ranks(session: int) -> list[int]:
    """Processes that Lightning started as ranks."""
    found = []
    for pid in members(session):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if "train_ddp_process_" in words:
            found.append(pid)
    return found


def most_epochs(folder: Path) -> int:
    return max((len(path.read_text().splitlines()) - 1 for path in folder.glob("run/*/metrics.csv")), default=0)


def statuses(folder: Path) -> list[str]:
    return [json.loads(path.read_text())["status"] for path in folder.glob("run/*/results.json")]


def outcome(folder: Path) -> dict[str, bytes]:
    names = ("student.safetensors", "metrics.csv")
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for n in names for path in folder.glob(f"run/*/{n}")}


if __name__ == "__main__":
    main()
