"""The commands, as a user types them: in a process of their own, in an empty folder."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import offline_wandb
import own_data
import pytest
import torch
from warm_programs import Program

SCRIPTS = Path(sys.executable).parent
SMOKE = ("experiment=smoke",)


def runs(folder: Path, pattern: str = "multirun/*/*") -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{pattern}/results.json"))]


def only_run(folder: Path) -> Path:
    (path,) = folder.glob("outputs/*/*")
    return path


def wandb_runs(folder: Path) -> list[dict]:
    """What W&B itself reads back from the offline runs: state, config and summary; group, job type and tags."""
    found = []
    for path in sorted(folder.glob("**/wandb/offline-run-*")):
        (run,) = [record for record in offline_wandb.records(path) if record["type"] == "run"]
        found.append(offline_wandb.summary(path) | {"run": json.dumps(run)})
    return found


@pytest.mark.quick
def test_help_is_short_and_names_the_groups_and_their_options(command):
    done = command("kdexp-train", "--help")
    assert len(done.stdout.splitlines()) < 45
    for words in ("dataset:", "student:", "resnet20", "distillation:", "alpha", "kdexp-train -m"):
        assert words in done.stdout
    shown = command("kdexp-eval", "--help").stdout
    assert "run=" in shown
    for option in (Path(__file__).parents[2] / "conf" / "robustness").glob("*.yaml"):
        assert option.stem in shown or option.stem == "base"


@pytest.mark.quick
@pytest.mark.parametrize(
    "program",
    ["kdexp-train", "kdexp-eval", "kdexp-doctor", "kdexp-compare", "kdexp-cache", "kdexp-export", "kdexp-predict"],
)
def test_the_version_is_kdexps_own(command, program):
    assert command(program, "--version").stdout == f"kdexp {version('kdexp')}\n"


@pytest.mark.quick
def test_the_help_of_a_program_with_the_settings_of_another_has_its_own_examples(command):
    shown = command("kdexp-cache", "build", "--help").stdout
    assert "  kdexp-cache build dataset=cifar100 " in shown
    assert "kdexp-train -" not in shown
    assert "  kdexp-train" not in shown


@pytest.mark.quick
def test_settings_may_stand_on_both_sides_of_a_flag(command, tmp_path):
    done = command("kdexp-train", "alpha=0.3", "--cfg", "job", "~optimizer.fused", "--config-dir", tmp_path, "seed=2")
    assert "alpha: 0.3\n" in done.stdout
    assert "seed: 2\n" in done.stdout
    assert "fused" not in done.stdout.partition("recipe:")[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("alpha=2",), "alpha must be in [0, 1], got 2.0"),
        (("dataset.train_fraction=0.001",), "dataset.train_fraction must leave samples"),
        (("data_dir=nowhere", "dataset=mnist", "hydra.run.dir=mine/one"), "data_dir has no MNIST"),
        (("-m", "seed=0,1", "alpha=2"), "alpha must be in [0, 1], got 2.0"),
        (("-m", "seed=0,1", "output_dir=x"), "output_dir must be left to a sweep, which has a folder for each job"),
        (("-m", "seeds=0,1"), "there is no setting seeds; did you mean seed?"),
        (("--epochs=3",), "there is no flag --epochs=3; a setting is typed without dashes: epochs=VALUE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_refused_run_leaves_no_folder(command, tmp_path, settings, message):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = command("kdexp-train", *SMOKE, "tracking=none", *settings, rc=2)
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [Path("mine"), Path("mine/notes.txt")]


def test_the_log_lies_in_the_output_dir(command, tmp_path):
    done = command("kdexp-train", *SMOKE, "tracking=none", "trainer.max_epochs=0", "output_dir=mine", rc=2)
    assert done.stderr.startswith("error: trainer.max_epochs must be")
    assert not list(tmp_path.iterdir())
    diverging = ("optimizer.lr=1e30", "trainer.limit_train_batches=1", "output_dir=mine")
    done = command("kdexp-train", *SMOKE, "tracking=none", *diverging, rc=1)
    assert done.stderr.rstrip().endswith("[diverged; log: mine/train.log]")
    assert "Diverged" in (tmp_path / "mine" / "train.log").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_stops_a_continued_run_is_in_its_log(command, tmp_path):
    data = ["dataset=image_folder", *own_data.image_folder(tmp_path), "dataset.source.size=32", "dataset.batch_size=4"]
    command("kdexp-train", *data, "tracking=none", "student=cnn", "alpha=1", "trainer.max_epochs=1", "output_dir=run")
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    (tmp_path / "run" / "results.json").write_text(json.dumps(found | {"status": "interrupted"}))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    for image in tmp_path.glob("images/*/*.png"):
        image.write_bytes(image.read_bytes()[:-30])
    done = command("kdexp-train", "resume=run", rc=2)
    assert "warning: its data have changed since: the results of this run are of both" in done.stdout + done.stderr
    assert re.search(
        r"error: dataset.source has the corrupt file.*\[failed; log: .*/run/train.log\]$", done.stderr.strip()
    )
    assert "dataset.source has the corrupt file" in (tmp_path / "run" / "train.log").read_text()


def test_a_refused_run_takes_nothing_that_was_there_before(command, tmp_path):
    """What an earlier run left, however little, and the folder that the command is given in."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("{}")
    command("kdexp-train", *SMOKE, "alpha=2", "hydra.run.dir=run", rc=2)
    assert (tmp_path / "run" / "results.json").read_text() == "{}"
    assert (tmp_path / "run" / "train.log").read_text() == "", "the log is the earlier run's"
    command("kdexp-train", *SMOKE, "alpha=2", "hydra.run.dir=.", rc=2)
    assert (tmp_path / "run" / "results.json").exists()


@pytest.mark.quick
def test_the_composed_configuration_is_printed_without_running(command, tmp_path):
    done = command("kdexp-train", "--cfg", "job", "student=resnet20", "alpha=0.3")
    assert "alpha: 0.3" in done.stdout
    assert "kdexp.models.resnet_cifar.resnet20" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_run_from_the_command_line_and_its_evaluation(command, tmp_path):
    done = command("kdexp-train", *SMOKE, "seed=1")
    folder = only_run(tmp_path)
    assert "distilled" in done.stdout
    assert str(folder.name) in done.stdout
    assert "Warning" not in done.stdout + done.stderr
    assert (folder / ".hydra" / "config.yaml").exists()
    again = command("kdexp-eval", f"run={folder}")
    assert "equal within" in again.stdout
    assert "agreement" in again.stdout
    settings = ("robustness=noise_levels", "robustness.samples=50", "control=skip")
    evaluated = command("kdexp-eval", f"run={folder}", *settings)
    assert re.search(r"noise: accuracy, gaussian_noise +\d+\.\d\d +\d+\.\d\d", evaluated.stdout)
    assert (folder / "robustness.csv").exists()
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2, "the report is added to the run's tracking"
    refused = command("kdexp-eval", f"run={folder}", "robustness=quick", "control=find", rc=2)
    assert refused.stderr.startswith("error: control must be found beside the run")
    assert len(refused.stderr.splitlines()) == 1
    with (folder / "results.json").open() as file:
        stored = json.load(file)
    stored["metrics"]["test"]["best"]["acc"] += 0.01
    (folder / "results.json").write_text(json.dumps(stored))
    assert "NOT equal" in command("kdexp-eval", f"run={folder}", rc=1).stdout
    assert not (tmp_path / "eval.log").exists()


def test_a_sweep_makes_a_run_and_a_wandb_run_of_its_own_for_each_job(command, tmp_path):
    done = command("kdexp-train", "-m", "alpha=0.1,0.5", "temperature=1,4", *SMOKE)
    found = runs(tmp_path)
    assert [run["status"] for run in found] == ["completed"] * 4
    assert {(run["alpha"], run["temperature"]) for run in found} == {(0.1, 1), (0.1, 4), (0.5, 1), (0.5, 4)}
    assert len({run["fingerprint"] for run in found}) == 4
    assert "temperature=4" in done.stdout
    tracked = wandb_runs(tmp_path)
    assert {(run["config"]["alpha"], run["config"]["temperature"]) for run in tracked} == {
        (0.1, 1), (0.1, 4), (0.5, 1), (0.5, 4),
    }  # fmt: skip
    (sweep,) = tmp_path.glob("multirun/*")
    for run, tracked_run in zip(found, tracked, strict=True):
        assert tracked_run["state"] == "finished"
        assert tracked_run["config"]["student_name"] == "cnn_small"
        assert tracked_run["config"]["versions"]["torch"] == version("torch")
        assert tracked_run["summary"]["test/acc"] == pytest.approx(run["metrics"]["test"]["best"]["acc"])
        assert tracked_run["summary"]["val/acc"]["max"] == pytest.approx(run["metrics"]["val"]["best"]["acc"])
        for words in (sweep.name, "distill", "synthetic"):
            assert words in tracked_run["run"]


def test_a_sweep_over_two_cpu_processes_makes_one_result_a_job_and_ends(command, tmp_path):
    command("kdexp-train", "-m", "alpha=0.1,0.5", "temperature=1,4", *SMOKE, "trainer=ddp_cpu")
    found = runs(tmp_path)
    assert [run["status"] for run in found] == ["completed"] * 4
    assert {(run["alpha"], run["temperature"]) for run in found} == {(0.1, 1), (0.1, 4), (0.5, 1), (0.5, 4)}
    assert len(list(tmp_path.glob("multirun/*/*/wandb/offline-run-*"))) == 4
    assert not (tmp_path / "outputs").exists()


def test_a_failed_job_does_not_stop_the_sweep_and_the_sweep_says_so(command, tmp_path):
    done = command(
        "kdexp-train", "-m", "optimizer.lr=0.01,1e30", "seed=0,1", *SMOKE, "optimizer=sgd", "scheduler=constant", rc=1
    )
    assert sorted(run["status"] for run in runs(tmp_path)) == ["completed", "completed", "diverged", "diverged"]
    assert "diverged" in done.stdout
    assert sorted(run["state"] for run in wandb_runs(tmp_path)) == ["failed", "failed", "finished", "finished"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("alpha=1.5",), r"alpha must be in \[0, 1\], got 1.5"),
        (("loss=nope",), r"there is no loss=nope \(of loss there are .*kd"),
        (("loss.tempratur=4",), r"tempratur"),
        (("resume=nowhere",), r"resume must be the folder of a run .*nowhere"),
        (
            ("resume=nowhere", "alpha=1"),
            r"resume takes every setting but data_dir, .* from the run and must stand alone, got alpha=1$",
        ),
    ],
    ids=" ".join,
)
def test_a_wrong_setting_is_one_line_on_stderr_and_exit_code_2(command, tmp_path, overrides, message):
    smoke = SMOKE if not overrides[0].startswith("resume") else ()
    done = command("kdexp-train", *smoke, *overrides, rc=2)
    assert re.search(message, done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config-dir", "slip", "--config-name", "flow"), r"expected ',' or '\]'.* in \".*slip/flow.yaml\", line 2"),
        (("--config-dir", "slip", "student=mine"), r"not allowed here.* in \".*slip/student/mine.yaml\", line 2"),
        ((*SMOKE, "hydra.run.dir=/proc/nowhere"), r"No such file or directory: '/proc/nowhere'"),
        ((*SMOKE, "tracking=none", "store_dir=/proc/nowhere"), r"store_dir must be a folder that can be written"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else None,
)  # fmt: skip
def test_a_slip_in_a_yaml_and_a_folder_that_cannot_be_written_to_are_one_line(command, tmp_path, arguments, message):
    (tmp_path / "slip" / "student").mkdir(parents=True)
    (tmp_path / "slip" / "flow.yaml").write_text("alpha: [0.1\nseed: 1\n")
    (tmp_path / "slip" / "student" / "mine.yaml").write_text("_target_: kdexp.models.mlp.mlp\n  hidden: [3]\n")
    done = command("kdexp-train", *arguments, rc=2)
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("teacher ")]
    assert re.search(message, line)
    assert "Traceback" not in done.stdout + done.stderr


def test_a_run_whose_output_nobody_reads_goes_to_its_end(tmp_path, store):
    environment = os.environ | {"KDEXP_STORE_DIR": str(store), "OMP_NUM_THREADS": "1"}
    script = '"$0" experiment=smoke tracking=none hydra.run.dir=run'
    for reader in (">&- 2>&-", "| head -1"):
        program = Path(sys.executable).with_name("kdexp-train")
        subprocess.run(["bash", "-c", f"{script} {reader}", program], cwd=tmp_path, env=environment, check=False,
                       capture_output=True)  # fmt: skip
        assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == "completed"
        shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize("value", ["abc", "1.5"])
def test_a_sweep_with_one_wrong_value_is_refused_before_its_first_job(command, tmp_path, value):
    done = command("kdexp-train", "-m", f"alpha=0.1,{value}", *SMOKE, rc=2)
    assert "alpha" in done.stderr
    assert value in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "multirun").exists()


def test_a_run_goes_to_its_end_when_wandbs_server_does_not_answer(command, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # a port that nobody listens on
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        started = time.monotonic()
        done = command(
            "kdexp-train",
            *SMOKE,
            "tracking.wandb=online",
            WANDB_MODE="online",
            WANDB_BASE_URL=url,
            WANDB_API_KEY="x" * 40,
        )
        assert time.monotonic() - started < 120
    assert "does not answer" in done.stdout
    assert runs(tmp_path, "outputs/*/*")[0]["status"] == "completed"


LONG = (*SMOKE, "trainer.max_epochs=16", "tracking=none", "student.dropout=0.3")


def start(tmp_path, store, *arguments) -> Program:
    env = os.environ | {"KDEXP_STORE_DIR": str(store), "OMP_NUM_THREADS": "1"}
    return Program([SCRIPTS / "kdexp-train", *arguments], tmp_path, env)


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert process.poll() is None, "ended too early"
        time.sleep(0.002)


def final_state(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same_end(a: Path, b: Path) -> None:
    one, two = final_state(a), final_state(b)
    assert one["epoch"] == two["epoch"]
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, two["state_dict"][name]), name
    for slot, values in one["optimizer_states"][0]["state"].items():
        for name, value in values.items():
            assert torch.equal(value, two["optimizer_states"][0]["state"][slot][name])
    assert (a / "metrics.csv").read_text() == (b / "metrics.csv").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, store) -> Path:
    """The run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert start(folder, store, *LONG).wait(300) == 0
    return only_run(folder)


@pytest.mark.parametrize(
    ("signal_number", "status", "moment"),
    [
        (signal.SIGKILL, "running", "middle of an epoch"),
        (signal.SIGKILL, "running", "end of an epoch"),
        (signal.SIGINT, "interrupted", "middle of an epoch"),
        (signal.SIGTERM, "interrupted", "middle of an epoch"),
    ],
)
def test_a_run_that_was_cut_off_is_continued_to_the_same_weights_bit_for_bit(
    command, tmp_path, store, whole, signal_number, status, moment
):
    process = start(tmp_path, store, *LONG)
    wait_for(lambda: list(tmp_path.glob("outputs/*/*/metrics.csv")), process)
    folder = only_run(tmp_path)
    wait_for(lambda: len((folder / "metrics.csv").read_text().splitlines()) > 3, process)
    if moment == "middle of an epoch":
        time.sleep(0.01)
    process.send_signal(signal_number)
    code = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[signal_number]
    assert process.wait(60) == code
    if code > 0:
        assert f"interrupted; continue with: kdexp-train resume={folder}" in process.written(1)
    assert runs(tmp_path, "outputs/*/*")[0]["status"] == status
    done = command("kdexp-train", f"resume={folder}")
    assert "continuing from" in done.stdout
    assert runs(tmp_path, "outputs/*/*")[0]["status"] == "completed"
    assert_same_end(whole, folder)
    assert len(list(tmp_path.glob("outputs/*/*"))) == 1


def test_a_run_of_masks_that_was_killed_is_continued_to_the_same_weights_bit_for_bit(command, tmp_path, store):
    networks = [f"{role}.{size}" for role in ("student", "teacher") for size in ("width=4", "depth=2")]
    settings = (
        "dataset=shapes", "student=mobilenet_unet", "teacher=unet", *networks, "augment=masks_turned",
        "teacher.recipe.max_epochs=1", "trainer.max_epochs=6", "trainer.accelerator=cpu", "tracking=none",
    )  # fmt: skip
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
    assert start(folders[0], store, *settings).wait(300) == 0
    process = start(folders[1], store, *settings)
    wait_for(lambda: list(folders[1].glob("outputs/*/*/metrics.csv")), process)
    killed = only_run(folders[1])
    wait_for(lambda: len((killed / "metrics.csv").read_text().splitlines()) > 2, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -9
    assert "continuing from" in command("kdexp-train", f"resume={killed}").stdout
    assert_same_end(only_run(folders[0]), killed)


def test_a_users_own_loss_and_student_are_a_file_and_a_yaml_each_outside_the_project(command, tmp_path):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for path in ("mine.py", "my_conf/student/linear.yaml", "my_conf/loss/hellinger.yaml"):
        (content,) = re.findall(rf"```\w+\n# {path}\n(.*?)```", readme, re.DOTALL)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    arguments = ("kdexp-train", "--config-dir", "my_conf", "student=linear", "loss=hellinger", "dataset=synthetic",
                 "teacher=mlp", "teacher.recipe.max_epochs=1", "trainer.max_epochs=1", "tracking=none")  # fmt: skip
    refused = command(*arguments, rc=2, PYTHONPATH=str(tmp_path))
    assert "KDEXP_TRUST" in refused.stderr
    command(*arguments, "temperature=3", PYTHONPATH=str(tmp_path), KDEXP_TRUST="mine")
    (run,) = runs(tmp_path, "outputs/*/*")
    assert run["status"] == "completed"
    assert run["choices"]["loss"] == "hellinger"
    assert run["config"]["loss"]["temperature"] == 3


@pytest.mark.slow
def test_the_wheel_holds_all_it_needs(tmp_path):
    """Built, installed in an empty folder (beside this environment's packages), and run there."""
    root = Path(__file__).parents[2]
    source = tmp_path / "source"
    shutil.copytree(
        root,
        source,
        ignore=shutil.ignore_patterns(".git", ".venv", "*.egg-info", "build", "outputs", "multirun", "__pycache__"),
    )
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)],
        check=True,
    )
    (wheel,) = tmp_path.glob("kdexp-*.whl")
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    assert (site / "kdexp" / "conf" / "train.yaml").exists()
    assert (site / "kdexp" / "report" / "page" / "page.html").exists()
    assert not (site / "conf").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    # -S -P: neither this environment's editable kdexp nor the folder; its other packages by PYTHONPATH.
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    code = (
        "import kdexp, sys; assert kdexp.__file__.startswith(sys.argv.pop()); from kdexp.cli.train import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code, "experiment=smoke", "tracking=none", str(site)],
        cwd=empty, env=os.environ | {"PYTHONPATH": f"{site}:{packages}", "KDEXP_STORE_DIR": str(tmp_path / "store")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(empty.glob("outputs/*/*/results.json"))) == 1
