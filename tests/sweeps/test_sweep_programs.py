"""Sweeps from the command line: what is finished is kept, whatever happens, and nothing is run twice."""

import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import offline_wandb
import pytest
import warm_programs
from joblib import cpu_count
from warm_programs import Program, environment, is_warm

pytestmark = pytest.mark.slow

SCRIPTS = Path(sys.executable).parent
SMOKE = ("experiment=smoke", "tracking=none", "student.width=2")
ODD = """
import os, signal, sys
from pathlib import Path
from torch import nn

class Odd(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.calls = how, 0

    def forward(self, student_logits, teacher_logits, target):
        self.calls += 1
        if self.calls == 5 and not Path("healed").exists():
            if self.how == "raise":
                raise RuntimeError("on purpose")
            if self.how == "exit":
                sys.exit(0)
            if self.how == "vanish":
                os._exit(7)
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "diverge":
                return (student_logits * float("nan")).mean()
        return (student_logits - teacher_logits).square().mean()
"""


PATIENT = """
import time
from pathlib import Path
from torch import nn

class Patient(nn.Module):
    def __init__(self, folder):
        super().__init__()
        self.folder = Path(folder)

    def forward(self, student_logits, teacher_logits, target):
        end = time.monotonic() + 120
        while len(list(self.folder.glob("multirun/*/*/results.json"))) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        return (student_logits - teacher_logits).square().mean()
"""
"""A loss that waits for a second job: two jobs at a time are of two launches, since each runs one after the other."""


@pytest.fixture
def odd(tmp_path) -> tuple[str, ...]:
    """A loss of one's own that misbehaves until the file ``healed`` is there: the settings that sweep over it."""
    (tmp_path / "odd.py").write_text(ODD)
    (tmp_path / "my_conf" / "loss").mkdir(parents=True)
    (tmp_path / "my_conf" / "loss" / "odd.yaml").write_text("_target_: odd.Odd\nhow: well\n")
    return ("--config-dir", "my_conf", "loss=odd", "alpha=0.5")


def start(folder: Path, store: Path, *arguments: str, **more: str) -> subprocess.Popen | Program:
    argv = [SCRIPTS / "kdexp-train", "-m", *arguments]
    env = environment(KDEXP_STORE_DIR=str(store), WANDB_MODE="offline", **more)
    if is_warm(env):
        return Program(argv, folder, env, own_session=True)
    return subprocess.Popen(
        argv, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def wait_for(condition, seconds=180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def index(folder: Path) -> list[dict]:
    (path,) = folder.glob("multirun/*/sweep.json")
    return json.loads(path.read_text())["jobs"]


def runs(folder: Path) -> dict[str, dict]:
    """What the run folders say, by folder name; without looking at locks."""
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("multirun/*/*/results.json")}


def completed(folder: Path) -> dict[str, tuple]:
    """When each of the completed runs was started and ended."""
    return {n: (run["started"], run["ended"]) for n, run in runs(folder).items() if run["status"] == "completed"}


def wandb_states(folder: Path) -> dict[str, str]:
    found = sorted(folder.glob("multirun/*/*/wandb/offline-run-*"))
    return {path.parents[1].name: offline_wandb.summary(path)["state"] for path in found}


@pytest.mark.parametrize("launcher", ["basic", "fused", "joblib"])
def test_what_becomes_of_one_job_does_not_touch_the_others_and_only_they_are_run_again(
    command, tmp_path, odd, launcher
):
    sweep = ("kdexp-train", "-m", *odd, *SMOKE, "loss.how=raise,exit,vanish,kill,diverge,well", "tracking=wandb",
             f"hydra/launcher={launcher}")  # fmt: skip
    env = {"KDEXP_TRUST": "odd", "PYTHONPATH": str(tmp_path)}
    done = command(*sweep, rc=1, **env)
    statuses = {entry["folder"].split("-")[1]: entry["status"] for entry in index(tmp_path)}
    assert statuses == {
        "raise": "failed", "exit": "failed", "vanish": "failed", "kill": "killed", "diverge": "diverged",
        "well": "completed",
    }  # fmt: skip
    reasons = {entry["folder"].split("-")[1]: entry["error"] for entry in index(tmp_path)}
    assert "on purpose" in reasons["raise"]
    assert "SIGKILL" in reasons["kill"]
    assert "exited with code 7" in reasons["vanish"]
    assert "NaN or Inf" in reasons["diverge"]
    tails = {entry["folder"].split("-")[1]: "\n".join(entry["log_tail"]) for entry in index(tmp_path)}
    assert "RuntimeError: on purpose" in tails["raise"]
    assert "5 of 6 jobs did not complete" in done.stdout
    for words in ("on purpose", "killed by SIGKILL", "train.log", "run again     kdexp-train -m --config-dir my_conf"):
        assert words in done.stdout
    before = completed(tmp_path)
    states = wandb_states(tmp_path)
    assert {name.split("-")[1]: s for name, s in states.items() if "vanish" not in name and "kill" not in name} == {
        "raise": "failed", "exit": "failed", "diverge": "failed", "well": "finished",
    }  # fmt: skip
    assert not {s for name, s in states.items() if "vanish" in name or "kill" in name} & {"finished"}

    (tmp_path / "healed").touch()
    again = command(*sweep, **env)
    assert "1 completed before" in again.stdout
    assert len(completed(tmp_path)) == 6
    assert before.items() <= completed(tmp_path).items(), "what was completed was run again"
    if launcher != "basic":
        return
    (tmp_path / "odd.py").write_text(ODD + "# another version\n")
    assert "completed before" not in command(*sweep, WANDB_MODE="disabled", **env).stdout
    assert len(list(tmp_path.glob("multirun/*/superseded/*/results.json"))) == 6
    assert not before.items() & completed(tmp_path).items()


@pytest.mark.parametrize("launcher", ["basic", "fused"])
def test_a_sweep_killed_twice_at_a_random_moment_has_every_cell_once(command, tmp_path, store, launcher):
    sweep = (*SMOKE, "alpha=0.1,1", "temperature=1,4", "trainer.max_epochs=6", "student.dropout=0.2")
    on_launcher = f"hydra/launcher={launcher}"
    moment, seen = random.Random(), {}
    for _ in range(2):
        process = start(tmp_path, store, *sweep, on_launcher)
        # The first one may have been faster than its kill, and leaves nothing to run.
        wait_for(
            lambda ended=process.poll: (
                ended() is not None or any(run["status"] == "running" for run in runs(tmp_path).values())
            )
        )
        time.sleep(moment.uniform(0, 1.5))
        with suppress(ProcessLookupError):  # it was faster
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        now = completed(tmp_path)
        assert seen.items() <= now.items()
        seen = now
    command("kdexp-train", "-m", *sweep, on_launcher)
    entries = index(tmp_path)
    assert len(entries) == 3, "two distilled, and one control at whatever temperature"
    assert {entry["status"] for entry in entries} == {"completed"}
    assert seen.items() <= completed(tmp_path).items(), "what was completed was run again"
    # Continued runs come to what runs that nobody killed come to.
    (tmp_path / "whole").mkdir()
    command("kdexp-train", "-m", *sweep, "hydra/launcher=fused", cwd=tmp_path / "whole")
    assert outcomes(tmp_path) == outcomes(tmp_path / "whole")
    assert not list(tmp_path.glob("multirun/*/superseded"))


def outcomes(folder: Path) -> dict[str, tuple]:
    return {
        path.parent.name: ((path.parent / "student.safetensors").read_bytes(), json.loads(path.read_text())["metrics"])
        for path in folder.glob("multirun/*/*/results.json")
    }


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_saves_stops_and_says_how_to_go_on(command, tmp_path, store, number, code):
    sweep = (*SMOKE, "seed=0,1", "trainer.max_epochs=40", "student.dropout=0.2")
    process = start(tmp_path, store, *sweep)
    wait_for(lambda: len(list(tmp_path.glob("multirun/*/*/checkpoints/last.ckpt"))) == 1)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert sorted(entry["status"] for entry in index(tmp_path)) == ["interrupted", "waiting"]
    assert f"run again     kdexp-train -m {' '.join(sweep)}" in output
    done = command("kdexp-train", "-m", *sweep, "trainer.max_epochs=40")
    assert len(completed(tmp_path)) == 2
    (log,) = [p for p in tmp_path.glob("multirun/*/*/train.log") if "continuing from" in p.read_text()]
    assert "completed before" not in done.stdout
    assert log.parent.name.startswith("seed-0")


def test_two_launches_at_once_share_the_jobs(tmp_path, store):
    (tmp_path / "patient.py").write_text(PATIENT)
    (tmp_path / "my_conf" / "loss").mkdir(parents=True)
    (tmp_path / "my_conf" / "loss" / "patient.yaml").write_text(f"_target_: patient.Patient\nfolder: {tmp_path}\n")
    sweep = ("--config-dir", "my_conf", *SMOKE, "loss=patient", "alpha=0.5", "seed=0,1,2,3", "trainer.max_epochs=6")
    trusted = {"KDEXP_TRUST": "patient", "PYTHONPATH": str(tmp_path)}
    processes = [start(tmp_path, store, *sweep, **trusted) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    found = runs(tmp_path)
    assert [run["status"] for run in found.values()] == ["completed"] * 4
    logs = [path.read_text() for path in tmp_path.glob("multirun/*/*/train.log")]
    assert [len(re.findall(r"student: epoch 6/6", log)) for log in logs] == [1] * 4
    assert len({run["launch"] for run in found.values()}) == 2, "one launch waited while the other did all the work"
    for output in outputs:
        assert "acc" in output


def test_an_added_value_runs_the_new_cells_alone_and_rerun_all_sets_everything_aside(command, tmp_path):
    quick = (*SMOKE, "trainer.max_epochs=1")
    command("kdexp-train", "-m", *quick, "alpha=0.1,1", "temperature=1,4")
    first = completed(tmp_path)
    assert len(first) == 3
    done = command("kdexp-train", "-m", *quick, "alpha=0.1,1", "temperature=1,4,8")
    second = completed(tmp_path)
    assert "4 jobs (6 combinations, 2 duplicates skipped), 3 completed before" in done.stdout
    assert len(second) == 4
    assert first.items() <= second.items()
    command("kdexp-train", "-m", *quick, "alpha=0.1,1", "temperature=1,4,8", "rerun=all")
    third = completed(tmp_path)
    assert third.keys() == second.keys()
    assert not third.items() & second.items()
    aside = tmp_path.glob("multirun/*/superseded/*/results.json")
    assert sorted(json.loads(p.read_text())["started"] for p in aside) == sorted(begun for begun, _ in second.values())
    assert len(list(tmp_path.glob("multirun/*"))) == 1


def test_jobs_whose_data_changed_run_again(command, tmp_path):
    def write(label, value=float):
        (tmp_path / "my.csv").write_text("x,kind\n" + "".join(f"{value(i)},{label(i)}\n" for i in range(40)))

    sweep = (
        "-m", "dataset=csv", "dataset.source.file=my.csv", "dataset.source.label=kind", "student=mlp", "alpha=1",
        "tracking=none", "trainer.max_epochs=1", "seed=0,1",
    )  # fmt: skip
    write(lambda i: i % 2)
    command("kdexp-train", *sweep)
    first = completed(tmp_path)
    assert "2 completed before" in command("kdexp-train", *sweep).stdout
    said = "warning: of jobs that ran before, 2 run again: its data have changed since"
    for changed in ((lambda i: 1 - i % 2,), (lambda i: i % 2, lambda i: i * i)):  # the second has other mean and std
        write(*changed)
        done = command("kdexp-train", *sweep)
        assert said in done.stdout + done.stderr
        assert "completed before" not in done.stdout
        second = completed(tmp_path)
        assert second.keys() == first.keys()
        assert not first.items() & second.items()
        first = second
    assert "2 completed before" in command("kdexp-train", *sweep).stdout


def test_a_job_whose_name_looks_like_a_number_has_its_folder(command, tmp_path, monkeypatch):
    name = "875e9038"
    (tmp_path / "sitecustomize.py").write_text(
        f"import kdexp.sweeps.names\nkdexp.sweeps.names.name_job = lambda *a, **k: {name!r}\n"
    )
    command("kdexp-train", "-m", *SMOKE, "alpha=1", "trainer.max_epochs=1", PYTHONPATH=str(tmp_path))
    assert len(list(tmp_path.glob(f"multirun/*/{name}/results.json"))) == 1


def gains(folder: Path) -> dict[str, dict[str, float]]:
    """Run folder -> what W&B knows of the run's control and gain, from all its records."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted(folder.glob("multirun/*/*/wandb/offline-run-*")):
        told = offline_wandb.summary(path)["summary"]
        own = {name: value for name, value in told.items() if name in ("gain/acc", "control/test/acc")}
        found.setdefault(path.parents[1].name, {}).update(own)
    return found


@pytest.mark.parametrize("launcher", ["basic", "fused", "joblib"])
def test_controls_run_first_and_wandb_has_every_gain(command, tmp_path, launcher):
    sweep = ("kdexp-train", "-m", *SMOKE, "tracking=wandb", f"hydra/launcher={launcher}")
    command(*sweep, "alpha=0.1,0.5,1", "trainer.max_epochs=1", cwd=tmp_path)
    begun = {name: run["started"] for name, run in runs(tmp_path).items()}
    if launcher != "joblib":  # there they begin at the same time
        assert min(begun, key=begun.__getitem__).startswith("alpha-1-")
    accuracy = {name: run["metrics"]["test"]["best"]["acc"] for name, run in runs(tmp_path).items()}
    (control,) = (name for name in begun if name.startswith("alpha-1-"))
    told = gains(tmp_path)
    assert told.pop(control) == {}
    assert len(told) == 2
    for name, known in told.items():
        assert known["control/test/acc"] == pytest.approx(accuracy[control])
        assert known["gain/acc"] == pytest.approx(accuracy[name] - accuracy[control])


def test_gains_are_added_to_runs_that_were_done_before_their_control(command, tmp_path):
    sweep = ("kdexp-train", "-m", *SMOKE, "tracking=wandb", "trainer.max_epochs=1")
    done = command(*sweep, "alpha=0.1,0.5")
    assert set(map(len, gains(tmp_path).values())) == {0}
    (folder,) = tmp_path.glob("multirun/*")
    assert f"W&B           wandb leet {folder / 'wandb-runs'}" in done.stdout
    done = command(*sweep, "alpha=0.1,0.5,1")
    assert "adding gain/* and control/* to 2 runs" in done.stdout
    told = gains(tmp_path)
    assert sorted(map(len, told.values())) == [0, 2, 2]
    assert "adding gain" not in command(*sweep, "alpha=0.1,0.5,1").stdout, "it is done once"
    inspect = [SCRIPTS / "wandb", "leet", "inspect", "--summary", "--json"]
    read = [
        subprocess.run([*inspect, path], capture_output=True, check=True) for path in (folder / "wandb-runs").iterdir()
    ]
    assert any("gain/acc" in json.loads(done.stdout)["summary"] for done in read)


def test_a_sweep_goes_where_it_is_told_to(command, tmp_path):
    command("kdexp-train", "-m", *SMOKE, "seed=0", "sweep_name=mine")
    command("kdexp-train", "-m", *SMOKE, "seed=0", "sweep_name=mine", "hydra.sweep.dir='else where/${sweep_name}'")
    assert len(list(tmp_path.glob("multirun/mine/*/results.json"))) == 1
    assert len(list(tmp_path.glob("else where/mine/*/results.json"))) == 1


LAUNCHERS = {
    "joblib": ("kdexp", "hydra.launcher.n_jobs=2"),
    "ray": (
        "hydra_ray_launcher",
        "+hydra.launcher.ray.init.num_cpus=2",
        "+hydra.launcher.ray.init.include_dashboard=false",
    ),
    "submitit_local": ("hydra_submitit_launcher",),
    "fused": ("kdexp", "hydra.launcher.backend=loop"),
}


def on(launcher: str) -> tuple[str, ...]:
    plugin, *more = LAUNCHERS[launcher]
    if importlib.util.find_spec(f"hydra_plugins.{plugin}") is None:
        pytest.skip(f"{launcher} is not installed: pip install kdexp[fused,ray,slurm]")
    return (f"hydra/launcher={launcher}", *more)


FOUR = (*SMOKE, "alpha=0.1,1", "seed=0,1")


@pytest.fixture(scope="module")
def basic(tmp_path_factory, store) -> Path:
    """Four jobs, one after the other."""
    folder = tmp_path_factory.mktemp("basic")
    process = start(folder, store, *FOUR)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    return folder


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_gives_the_same_results_to_the_bit(command, tmp_path, basic, launcher):
    settings = on(launcher)
    done = command("kdexp-train", "-m", *FOUR, *settings, timeout=500, RAY_USAGE_STATS_ENABLED="0")
    assert len(completed(tmp_path)) == 4
    assert outcomes(tmp_path) == outcomes(basic)
    assert [entry["status"] for entry in index(tmp_path)] == ["completed"] * 4
    assert "4 completed" in done.stdout
    assert re.search(r"control +2 ", done.stdout)  # its seeds
    if launcher == "joblib":
        first, second, *_ = sorted(completed(tmp_path).values())
        assert second[0] < first[1], "two jobs at a time"
    assert "completed before" in command("kdexp-train", "-m", *FOUR).stdout, "the folder is the same on any launcher"


COUNT = """
import os
from pathlib import Path
import torch
from kdexp.losses.kd import KD

class Count(KD):
    def forward(self, *logits):
        Path(f"threads-{os.getpid()}").write_text(str(torch.get_num_threads()))
        return super().forward(*logits)
"""


@pytest.mark.parametrize(("n_jobs", "given", "wanted"), [(2, None, max(cpu_count() // 2, 1)), (1, "1", 1)])
def test_jobs_at_a_time_share_the_cores_unless_the_user_says_how_many_threads(tmp_path, store, n_jobs, given, wanted):
    (tmp_path / "count.py").write_text(COUNT)
    (tmp_path / "my_conf" / "loss").mkdir(parents=True)
    (tmp_path / "my_conf" / "loss" / "count.yaml").write_text("_target_: count.Count\ntemperature: ${temperature}\n")
    env = environment(KDEXP_STORE_DIR=str(store), WANDB_MODE="offline", KDEXP_TRUST="count", PYTHONPATH=str(tmp_path))
    program = [SCRIPTS / "kdexp-train", "-m", "--config-dir", "my_conf", "loss=count", *SMOKE, "seed=0,1",
               "hydra/launcher=joblib", f"hydra.launcher.n_jobs={n_jobs}"]  # fmt: skip
    if given:
        assert warm_programs.run(program, tmp_path, env | {"OMP_NUM_THREADS": given}, 300).returncode == 0
    else:  # a process that has imported PyTorch already had one thread
        del env["OMP_NUM_THREADS"]
        subprocess.run(program, cwd=tmp_path, check=True, capture_output=True, env=env)
    assert [path.read_text() for path in tmp_path.glob("threads-*")] == [str(wanted)] * 2


@pytest.mark.parametrize(
    ("n_jobs", "message"),
    [
        ("0", "hydra.launcher.n_jobs must be at least 1, or -1 for one a core, got 0"),
        ("few", "hydra.launcher.n_jobs must be a whole number, got few"),
    ],
)
def test_wrong_settings_of_joblib_are_one_line(command, n_jobs, message):
    done = command("kdexp-train", "-m", *SMOKE, "seed=0,1", "hydra/launcher=joblib", f"hydra.launcher.n_jobs={n_jobs}",
                   rc=2)  # fmt: skip
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_is_interrupted_on_every_launcher(tmp_path, store, launcher):
    process = start(tmp_path, store, *SMOKE, "seed=0,1", "trainer.max_epochs=5000", *on(launcher))
    wait_for(lambda: list(tmp_path.glob("multirun/*/*/checkpoints/last.ckpt")))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    statuses = [entry["status"] for entry in index(tmp_path)]
    assert "interrupted" in statuses
    assert set(statuses) <= {"interrupted", "waiting"}
    assert "run again     kdexp-train -m" in output


def test_the_articles_claims_are_one_command(command, tmp_path):
    """Several grids in one sweep, whose common runs are run once; it ends in curves, a page and the claims in words."""
    grids = '[{robustness:article},{dataset.train_fraction:"0.5,1"},{dataset.label_noise:"0,0.3"}]'
    sweep = (
        "kdexp-train", "experiment=article_robustness", "dataset=synthetic", "dataset.source.test_samples=64",
        "student.hidden=[8]", "teacher.width=2", "teacher.recipe.max_epochs=1", "trainer.max_epochs=1", "seed=0",
        "tracking=none", "sweep_name=mine", f"hydra.sweeper.grids={grids}",
    )  # fmt: skip
    done = command(*sweep)
    folder = tmp_path / "multirun" / "mine"
    jobs = {job["folder"]: job for job in index(tmp_path)}
    assert len(jobs) == 2 * 3
    assert sum("robustness=article" in job["overrides"] for job in jobs.values()) == 2
    assert all("dataset.train_fraction-" in name and "dataset.label_noise-" in name for name in jobs)
    for name in ("report.html", "compare.csv", "curve-train_fraction.png", "curve-label_noise.png", "claims.md"):
        assert str(folder / name) in done.stdout
        assert (folder / name).stat().st_size > (0 if name.endswith(".png") else 1000)
    assert "A distilled student needs less training data: too few seeds." in done.stdout
    text = (folder / "claims.md").read_text()
    for words in ("accuracy lost to noise in the inputs (gaussian noise, impulse noise, uniform noise)",
                  "accuracy lost to 30 % of noisy training labels", "synthetic (labels that did not train it)",
                  "The teacher was trained on the same noisy labels."):  # fmt: skip
        assert words in text
    assert "6 completed before" in command(*sweep).stdout
