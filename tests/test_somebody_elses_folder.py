"""Folders and options from somebody else: nothing in them is run, written elsewhere, sent or told.

Each attack is made on the ways in which a configuration from a file becomes objects. Two things tell whether it worked:
a mark that code leaves when it is run, and a server on this machine that notes whoever comes.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from kdexp import results, run_folder
from kdexp.cli import program
from kdexp.cli.cache import verify
from kdexp.config.compose import compose
from kdexp.experiment import tracking, wandb_server
from kdexp.experiment.finished_robustness import robustness
from kdexp.experiment.finished_run import run as measure
from kdexp.experiment.run import run
from kdexp.report.runs import control_folder

SMOKE = ("experiment=smoke", "tracking=none", "trainer.max_epochs=1", "teacher.recipe.max_epochs=1")
SECRET = "hunter2"


class Server:
    """Notes who comes, and hangs up."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.visits = 0
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self):
        while True:
            try:
                visitor, _ = self.socket.accept()
            except OSError:
                return
            self.visits += 1
            visitor.close()


@pytest.fixture
def server():
    found = Server()
    yield found
    found.socket.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, store):
    """A small finished run."""
    folder = tmp_path_factory.mktemp("finished")
    run(compose(SMOKE, output_dir=folder, store_dir=store))
    return folder


class Attack:
    """A copy of a finished run that is somebody else's, with a file of code in it.

    Attributes:
        folder: the run's.
        mark: made when the code is run.
        code: what would run the code: the arguments of site.addsitedir.
        elsewhere: a folder that does not exist.
    """

    def __init__(self, finished: Path, place: Path) -> None:
        self.place, self.folder = place, shutil.copytree(finished, place / "theirs")
        self.mark, self.elsewhere = place / "mark", place / "elsewhere"
        (self.folder / "x.pth").write_text(f"import pathlib; pathlib.Path({str(self.mark)!r}).touch()\n")
        self.run = {"_target_": "site.addsitedir", "sitedir": str(self.folder)}
        self.import_class = {"_target_": "timm.optim._optim_factory._import_class", "class_string": "site.addsitedir"}
        self.results = json.loads((self.folder / "results.json").read_text())
        self.config = self.results["config"]

    def write(self, **changed) -> None:
        (self.folder / "results.json").write_text(json.dumps(self.results | changed))

    def files(self) -> dict[Path, bytes]:
        """All that lies here, but the lock that says that a process looks at the folder."""
        return {path: path.read_bytes() for path in self.place.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.fixture
def attack(finished, tmp_path):
    return Attack(finished, tmp_path)


@cache
def settings(program: str) -> DictConfig:
    return compose([], program)


def evaluated(attack: Attack, **given):
    return measure(OmegaConf.merge(settings("eval"), {"run": str(attack.folder)}, given))


def resumed(attack: Attack):
    return run(compose([], resume=attack.folder, output_dir=attack.folder))


def put(config, setting, value):
    *above, last = setting.split(".")
    for key in above:
        config = config[key]
    config[last] = value


KD = {"_target_": "kdexp.losses.kd.KD"}
MLP = {"_target_": "kdexp.models.mlp.mlp", "num_classes": 13, "input_shape": [1, 8, 8], "feature_layers": None}
TIMM = {
    "_target_": "kdexp.models.timm_models.timm_model",
    "num_classes": 13,
    "input_shape": [1, 8, 8],
    "feature_layers": None,
    "resize": 32,
}

# Name -> the setting, and what is put there, of the attack.
CODE = {
    "what was confirmed": (
        "student",
        lambda a: (
            MLP
            | {
                "hidden": {
                    "_target_": "kdexp.data.loaders.Prepared",
                    "loader": [str(a.folder)],
                    "prepare": a.import_class,
                }
            }
        ),
    ),
    "a private helper alone": ("student", lambda a: {"_target_": "kdexp.data.loaders.Prepared"}),
    "any callable": ("student", lambda a: a.run),
    "a helper of timm's": ("optimizer", lambda a: a.import_class),
    "a module through a module": ("dataset.source", lambda a: {"_target_": "kdexp.data.splits.torch.load", "f": "x"}),
    "a function that imports what it is told": (
        "loss",
        lambda a: {"_target_": "torch.nn.attention._fa3.register_flash_attention_fa3"},
    ),
    "a module of torch that keeps a hook": (
        "loss",
        lambda a: {"_target_": "torch.nn.modules.module.register_module_forward_pre_hook", "hook": a.run},
    ),
    "another slot's constructor": ("loss", lambda a: {"_target_": "torch.optim.SGD", "_partial_": True}),
    "a call for later": ("student", lambda a: MLP | {"_partial_": True, "hidden": a.run}),
    "a call for later, of an optimizer": (
        "optimizer",
        lambda a: {"_target_": "torch.optim.SGD", "_partial_": True, "lr": a.run},
    ),
    "arguments by place": ("loss", lambda a: KD | {"_args_": [a.run]}),
    "not to look inside": ("loss", lambda a: KD | {"_recursive_": False, "temperature": a.run}),
    "deep in lists and mappings": (
        "augment.transforms",
        lambda a: [{"_target_": "kdexp.data.augment.Cutout", "size": 2, "fill": [[{"x": [a.run]}]]}],
    ),
    "in an inner loss": ("loss", lambda a: {"_target_": "kdexp.losses.logit_std.LogitStandardization", "loss": a.run}),
    "in the teacher's recipe": ("teacher.recipe.optimizer", lambda a: a.run),
    "in a schedule": (
        "scheduler",
        lambda a: {"_target_": "torch.optim.lr_scheduler.LambdaLR", "_partial_": True, "lr_lambda": a.run},
    ),
    "a helper of a feature distillation loss": (
        "feature_loss",
        lambda a: {"x": {"_target_": "kdexp.feature_losses.simkd.ReusedClassifier"}},
    ),
    "in a member of an ensemble": ("teacher.members", lambda a: {"a": MLP | {"hidden": a.run}}),
    "in an assistant": (
        "scheme",
        lambda a: {"assistants": {"a": MLP | {"hidden": a.run}}, "name": "teacher_assistant"},
    ),
    "a loader that calls what it is given": (
        "dataset.source",
        lambda a: {
            "_target_": "kdexp.data.downloads.load_torchvision",
            "dataset": a.run,
            "data_dir": "x",
            "download": True,
        },
    ),
    "a loader's helper that makes folders": (
        "dataset.source",
        lambda a: {"_target_": "kdexp.data.downloads.one_at_a_time", "data_dir": str(a.elsewhere)},
    ),
    "in an operator": (
        "robustness",
        lambda a: {
            "corruptions": {"kinds": {"x": {"_target_": "kdexp.robustness.corruption.Corruption", "operator": a.run}}}
        },
    ),
    "where nothing is called": ("tracking.tags", lambda a: [a.run]),
    "an interpolation that is a target": ("student._target_", lambda a: "${oc.env:TARGET}"),
}


@pytest.mark.slow
def test_the_mark_is_left_by_code_that_is_run_and_the_server_notes_a_visit(attack, server):
    """That is: the tests below can fail."""
    subprocess.run([sys.executable, "-c", f"import site; site.addsitedir({str(attack.folder)!r})"], check=True)
    assert attack.mark.exists()
    socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2]))).close()
    for _ in range(100):
        if server.visits:
            break
        threading.Event().wait(0.05)
    assert server.visits == 1


@pytest.mark.parametrize("name", CODE)
def test_no_code_is_run_from_a_run_folder(attack, name, monkeypatch):
    monkeypatch.setenv("TARGET", "site.addsitedir")
    setting, value = CODE[name]
    put(attack.config, setting, value(attack))
    attack.write()
    before = attack.files()
    with pytest.raises(ValueError, match=r"^[\w.]+ must ") as caught:
        evaluated(attack)
    assert "\n" not in str(caught.value)
    attack.write(status="interrupted")
    with pytest.raises(ValueError, match=r"^[\w.]+ must ") as again:
        resumed(attack)
    assert str(again.value).removeprefix("resume ") == str(caught.value).removeprefix("run ")
    attack.write()
    assert attack.files() == before
    assert not attack.mark.exists()


@pytest.mark.parametrize("name", CODE)
def test_no_code_is_run_from_the_card_of_a_cache(attack, name, monkeypatch):
    monkeypatch.setenv("TARGET", "site.addsitedir")
    setting, value = CODE[name]
    put(attack.config, setting, value(attack))
    kept = attack.place / "store" / "teacher-outputs" / "key"
    kept.mkdir(parents=True)
    made = {"teacher": "t", "dataset": "d"}
    (kept / "metadata.json").write_text(
        json.dumps({"created_for": made, "split": "train", "samples": 1, "key": {}, "config": attack.config})
    )
    (kept / "checksums.bin").touch()
    before = attack.files()
    ((key, good, found),) = verify(attack.place / "store", samples=20, seed=0)
    assert (key, good) == ("key", False)
    assert "must" in found
    assert "\n" not in found
    assert attack.files() == before
    assert not attack.mark.exists()


class Pickled:
    """Leaves the mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def pickled(attack) -> str:
    torch.save({"weight": Pickled(attack.mark)}, attack.folder / "evil.pth")
    return str(attack.folder / "evil.pth")


# Name -> the part of a network's configuration that says where its weights are.
FETCHED = {
    "an address": lambda a, s: {"pretrained": True, "pretrained_cfg": {"url": f"{s.address}/w.pth"}},
    "an address in the overlay": lambda a, s: {"pretrained": True, "pretrained_cfg_overlay": {"url": f"{s.address}/w"}},
    "a file by its address, kept anywhere": lambda a, s: {
        "pretrained": True,
        "cache_dir": str(a.elsewhere),
        "pretrained_cfg": {"url": f"file://{a.folder}/x.pth"},
    },
    "a place on the hub": lambda a, s: {"pretrained": True, "pretrained_cfg_overlay": {"hf_hub_id": "them/evil"}},
    "a pickle": lambda a, s: {"checkpoint_path": pickled(a)},
    "a pickle in the overlay": lambda a, s: {"pretrained": True, "pretrained_cfg_overlay": {"file": pickled(a)}},
    "a pickle in the configuration": lambda a, s: {"pretrained": True, "pretrained_cfg": {"file": pickled(a)}},
    "a folder by its name": lambda a, s: {"pretrained": True, "name": f"local-dir:{a.folder}"},
    "a place on the hub by its name": lambda a, s: {"pretrained": True, "name": "hf-hub:them/evil"},
    "a place on the hub behind a name": lambda a, s: {"pretrained": True, "name": "resnet18.hf-hub:them/evil"},
}


@pytest.mark.parametrize("name", FETCHED)
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_nothing_is_fetched_nor_unpacked_for_a_run_folder(attack, server, store, monkeypatch, name, role):
    for variable in ("TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(attack.place / "home"))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    network = TIMM | {"name": "test_resnet"} | FETCHED[name](attack, server)
    put(attack.config, role, attack.config[role] | network)
    for key in ("width", "dropout"):
        attack.config[role].pop(key, None)
    if role == "teacher":
        # Published weights of a name that timm has would be fetched from where timm has them.
        weights = attack.folder / "student.safetensors" if name == "a pickle" else "pretrained"
        attack.config["teacher"] |= {"weights": str(weights), "pretrained": True}
    attack.write()
    before = attack.files()
    with pytest.raises((ValueError, RuntimeError), match=r".") as caught:  # of another architecture, at the latest
        evaluated(attack, store_dir=str(store))
    assert isinstance(caught.value, ValueError), caught.value
    assert "\n" not in str(caught.value)
    assert attack.files() == before
    assert server.visits == 0
    assert not attack.mark.exists()
    assert not attack.elsewhere.exists()


@pytest.mark.parametrize("source", ["mnist", "cifar10", "pneumonia_mnist"])
def test_no_data_are_downloaded_for_a_run_folder(attack, source):
    attack.config["dataset"]["source"] = {
        "_target_": f"kdexp.data.{source}.load",
        "data_dir": str(attack.elsewhere),
        "download": True,
    }
    attack.write()
    with pytest.raises(FileNotFoundError, match=r"^data_dir has no "):
        evaluated(attack)
    assert not attack.elsewhere.exists()


def test_a_secret_of_the_environment_is_not_told(attack, monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)
    attack.config["teacher"]["weights"] = "/x/${oc.env:SECRET}"
    attack.write()
    with pytest.raises(ValueError, match=r"^config\.teacher\.weights must be a plain value") as caught:
        evaluated(attack)
    assert SECRET not in str(caught.value)


# MLflow's tables, as in test_tracking.py.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
@pytest.mark.parametrize("tool", ["wandb", "mlflow"])
def test_a_run_that_is_continued_is_tracked_where_the_reader_says(attack, server, store, tmp_path, monkeypatch, tool):
    if tool == "mlflow":
        pytest.importorskip("sqlalchemy")
        pytest.importorskip("mlflow.tracking")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mine.db")
    monkeypatch.setenv("WANDB_MODE", "offline")
    theirs = {"tool": tool, "wandb": "online", "uri": server.address, "entity": "them"}
    attack.config["tracking"] |= theirs
    attack.write(status="interrupted")
    found = resumed(attack)
    assert found["status"] == "completed"
    assert server.visits == 0
    assert found["config"]["tracking"]["uri"] == f"sqlite:///{tmp_path}/mine.db"
    assert found["config"]["tracking"]["entity"] is None
    assert (tmp_path / "mine.db").exists() == (tool == "mlflow")
    assert found["tracking"]["tool"] == tool


def test_trackers_can_be_typed_beside_resume(attack, store):
    attack.config["tracking"]["tool"] = "wandb"
    attack.write(status="interrupted")
    given = compose(["tracking=csv"], resume=attack.folder, output_dir=attack.folder, store_dir=store)
    assert run(given)["tracking"]["tool"] == "csv"


def test_the_program_takes_trackers_beside_resume_and_nothing_else(attack, monkeypatch):
    given = ["kdexp-train", f"resume={attack.folder}", "tracking=none", "tracking.project=p"]
    monkeypatch.setattr(sys, "argv", list(given))
    program._continue_run()
    assert sys.argv == [*given, f'hydra.run.dir="{attack.folder}"', "hydra.output_subdir=null"]
    monkeypatch.setattr(sys, "argv", [*given, "alpha=1"])
    with pytest.raises(ValueError, match=r"^resume takes every setting but data_dir.* got alpha=1$"):
        program._continue_run()


def test_a_robustness_report_is_sent_and_kept_where_the_reader_says(attack, store, monkeypatch):
    """The folder says online, for its own team, and a store that is not there; the reader's W&B is to be offline."""
    asked = []
    begin = tracking._wandb_run

    def watched(mode, settings, *more):
        asked.append((mode, settings["entity"]))
        return begin("offline", settings, *more)

    monkeypatch.setattr(tracking, "_wandb_run", watched)
    monkeypatch.setattr(wandb_server, "problem_of_server", lambda: None)
    for name, value in {"WANDB_MODE": "offline", "WANDB_API_KEY": "0" * 40, "KDEXP_STORE_DIR": str(store)}.items():
        monkeypatch.setenv(name, value)
    config = attack.config
    config["tracking"] |= {"tool": "wandb", "wandb": "online", "entity": "them"}
    config["store_dir"] = str(attack.elsewhere)
    config["teacher"] |= config["student"] | {"weights": str(attack.folder / "student.safetensors")}
    attack.write(tracking={"tool": "wandb", "location": "http://theirs", "group": None})
    overrides = ("robustness=noise_levels", "robustness.samples=20", "robustness.n_resamples=100")
    ((_, report),) = robustness(compose(list(overrides), "eval", run=attack.folder, control="skip"))
    assert list(report["models"]) == ["teacher", "student"]
    assert asked == [("offline", None)]
    assert not attack.elsewhere.exists()


@pytest.mark.parametrize("place", ["figures", "train.log", "robustness", "student.safetensors"])
def test_a_run_folder_with_a_link_out_of_it_is_refused(attack, place):
    target = attack.place / "outside"
    shutil.rmtree(attack.folder / place, ignore_errors=True)
    (attack.folder / place).unlink(missing_ok=True)
    (attack.folder / place).symlink_to(target)
    with pytest.raises(ValueError, match=r"^run must hold no link to what is outside, got "):
        evaluated(attack)
    attack.write(status="interrupted")
    with pytest.raises(ValueError, match=r"^resume must hold no link to what is outside, got "):
        resumed(attack)
    assert not target.exists()


@pytest.mark.parametrize("name", ["../../x", "/x", ""])
def test_the_names_of_peers_and_assistants_are_no_paths(attack, name):
    network = attack.config["student"]
    attack.config["scheme"] = {"name": "teacher_assistant", "assistants": {name: network}}
    attack.write(status="interrupted")
    with pytest.raises(ValueError, match=r"^scheme\.assistants must have names of letters, digits, _, \. and -, got "):
        resumed(attack)


def test_what_a_results_json_makes_paths_of_are_names(attack):
    attack.write(wandb_id="/../../../x")
    with pytest.raises(ValueError, match=r"wandb_id must be letters and digits, got '/\.\./\.\./\.\./x'$"):
        results.read(attack.folder, "run")
    with pytest.raises(ValueError, match=r"must hold what its files name, got .* which is outside$"):
        run_folder.set_aside(attack.folder)


# Options of a folder that is given with --config-dir: a file's name and content; and how they are chosen.

GLOBAL = "# @package _global_\n"
HANDLERS = "handlers: {h: {(): site.addsitedir, sitedir: <FOLDER>}}"
OPTIONS = {
    "a student": ("student", "defaults: [base]\n_target_: kdexp.models.mlp.mlp\nhidden: <HIDDEN>\n"),
    "a loss": ("loss", "_target_: site.addsitedir\nsitedir: <FOLDER>\n"),
    "loggers": ("experiment", f"{GLOBAL}hydra: {{job_logging: {{{HANDLERS}}}}}\n"),
    "loggers by their place": ("experiment", f"# @package hydra.job_logging\n{HANDLERS}\n"),
    "callbacks": ("experiment", f"{GLOBAL}hydra: {{callbacks: {{x: <RUN>}}}}\n"),
    "the environment": ("experiment", f"{GLOBAL}hydra: {{job: {{env_set: {{KDEXP_TRUST: site}}}}}}\nloss: <RUN>\n"),
    "variables to copy": ("experiment", f"{GLOBAL}hydra: {{job: {{env_copy: [SECRET]}}}}\n"),
    "an argument of the launcher": ("experiment", f"{GLOBAL}hydra: {{launcher: {{n_jobs: <RUN>}}}}\n"),
    "a sweep over hydra's settings": (
        "experiment",
        f"{GLOBAL}hydra:\n  mode: MULTIRUN\n  sweeper: {{params: {{+hydra.job.env_set.KDEXP_TRUST: site}}}}\n",
    ),
    "an interpolation for all of it": ("experiment", f"{GLOBAL}x: {{callbacks: {{x: <RUN>}}}}\nhydra: ${{x}}\n"),
    "an interpolation for a part of it": ("experiment", f"{GLOBAL}x: {{_target_: y}}\nhydra: {{sweeper: '${{x}}'}}\n"),
    "where it writes": ("experiment", f"{GLOBAL}hydra: {{run: {{dir: <ELSEWHERE>}}}}\n"),
    "a secret": ("experiment", f"{GLOBAL}tracking: {{name: '${{oc.env:SECRET}}'}}\n"),
    "a secret that is swept over": (
        "experiment",
        f"{GLOBAL}hydra: {{mode: MULTIRUN, sweeper: {{params: {{tracking.name: '${{oc.env:SECRET}}'}}}}}}\n",
    ),
    "a password": ("experiment", f"{GLOBAL}tracking: {{uri: 'http://me:{SECRET}@host'}}\n"),
    "an address of weights": (
        "student",
        "defaults: [base]\n_target_: kdexp.models.timm_models.timm_model\nname: test_resnet\npretrained: true\n"
        "pretrained_cfg: {url: <ADDRESS>/x}\n",
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_somebody_else_run_no_code_and_tell_nothing(attack, server, command, name):
    group, content = OPTIONS[name]
    hidden = CODE["what was confirmed"][1](attack)["hidden"]
    path = attack.place / "their_conf" / group / "theirs.yaml"
    path.parent.mkdir(parents=True)
    words = {
        "<FOLDER>": str(attack.folder),
        "<ELSEWHERE>": str(attack.elsewhere),
        "<ADDRESS>": server.address,
        "<RUN>": json.dumps(attack.run),
        "<HIDDEN>": json.dumps(hidden),
    }
    path.write_text(re.sub("|".join(words), lambda found: words[found[0]], content))
    others = () if group == "experiment" else ("experiment=smoke",)
    chosen = f"{group}=theirs"
    done = command(
        "kdexp-train",
        "--config-dir",
        attack.place / "their_conf",
        *others,
        chosen,
        "tracking.wandb=disabled",
        "trainer.max_epochs=1",
        "hydra.run.dir=mine",
        rc=2,
        cwd=attack.place,
        SECRET=SECRET,
    )
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert " must " in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert not attack.mark.exists()
    assert not attack.elsewhere.exists()
    assert server.visits == 0
    left = [path for path in attack.place.glob("mine/**/*") if path.is_file()]
    assert not [path for path in left if SECRET in path.read_text()]
    assert not [
        path
        for path in left
        if path.name not in ("config.yaml", "hydra.yaml", "overrides.yaml", "train.log", "results.json", ".lock")
    ]


def test_ones_own_options_may_say_what_is_swept_and_numbers_of_the_launcher(command, tmp_path):
    path = tmp_path / "my_conf" / "experiment" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        "# @package _global_\ndefaults:\n  - smoke\n  - override /hydra/launcher: joblib\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {alpha: '1,0.5'}}, launcher: {n_jobs: 2}}\n"
        "trainer: {max_epochs: 1}\nteacher: {recipe: {max_epochs: 1}}\n"
    )
    done = command("kdexp-train", "--config-dir", "my_conf", "experiment=mine", "tracking=none")
    assert "2 jobs" in done.stdout
    assert len(list(tmp_path.glob("multirun/*/*/student.safetensors"))) == 2


@pytest.mark.parametrize("place", ["multirun.yaml", "job/train.log"])
def test_a_sweep_is_not_gone_on_with_in_a_folder_that_has_links_out_of_it(command, tmp_path, place):
    """Hydra writes the one and appends to the other."""
    outside = tmp_path / "outside"
    outside.write_text("mine\n")
    link = tmp_path / "multirun" / "theirs" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    refused = command("kdexp-train", "-m", *SMOKE, "seed=0,1", "sweep_name=theirs", rc=2)
    assert refused.stderr == f"error: sweep_name must hold no link to what is outside, got {link}\n"
    assert outside.read_text() == "mine\n"
    assert [path.name for path in link.parent.iterdir()] == [link.name]


def test_a_password_of_the_environment_is_in_no_file_and_on_no_line(command, tmp_path):
    """The server is one that nobody can reach: what it is asked with is not seen, but what is said of it is."""
    pytest.importorskip("mlflow.tracking")
    address = f"http://me:{SECRET}@127.0.0.1:9"
    done = command(
        "kdexp-train",
        *SMOKE[:1],
        *SMOKE[2:],
        "tracking=mlflow",
        "hydra.run.dir=mine",
        rc=None,
        MLFLOW_TRACKING_URI=address,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
        MLFLOW_HTTP_REQUEST_TIMEOUT="2",
    )
    refused = command("kdexp-train", *SMOKE[:1], "tracking=mlflow", f"tracking.uri={address}", "hydra.run.dir=no", rc=2)
    assert "tracking.uri must hold no password" in refused.stderr
    assert not (tmp_path / "no").exists()
    said = done.stdout + done.stderr + refused.stdout + refused.stderr
    assert SECRET not in said
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (tmp_path / "mine" / "results.json") in written
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    config = json.loads((tmp_path / "mine" / "results.json").read_text())["config"]
    assert config["tracking"]["uri"] == "http://me:***@127.0.0.1:9"


def test_the_installed_timm_reads_plain_weights_and_no_pickles(attack):
    """What pyproject.toml's floor is for: below it a checkpoint's code is run.

    At the floor: pip install --no-deps --target FOLDER timm==1.0.26, and PYTHONPATH=FOLDER pytest -k timm.
    """
    import timm

    path = pickled(attack)
    for options in ({"checkpoint_path": path}, {"pretrained": True, "pretrained_cfg_overlay": {"file": path}}):
        with pytest.raises(RuntimeError, match="weights_only=True blocked loading this checkpoint"):
            timm.create_model("test_resnet", **options)
    assert not attack.mark.exists()
    torch.load(path, weights_only=False)
    assert attack.mark.exists()


def test_a_store_that_is_theirs_must_not_lead_out_of_itself(attack):
    theirs = attack.place / "their_store"
    theirs.mkdir()
    attack.elsewhere.mkdir()
    (theirs / "teachers").symlink_to(attack.elsewhere)
    attack.config["store_dir"] = str(theirs)
    attack.write(status="interrupted")
    before = attack.files()
    with pytest.raises(ValueError, match=r"^store_dir must hold no link to what is outside, got .*_store/teachers$"):
        resumed(attack)
    assert not list(attack.elsewhere.iterdir())
    assert attack.files() == before


def test_a_control_whose_folder_leads_out_is_not_used(attack):
    control = attack.place / "control"
    shutil.copytree(attack.folder, control)
    attack.elsewhere.mkdir()
    (control / "robustness").symlink_to(attack.elsewhere)
    facts = {**attack.results, "is_control": True}
    (control / "results.json").write_text(json.dumps(facts))
    assert control_folder(attack.results, attack.place) is None
    (control / "robustness").unlink()
    assert control_folder(attack.results, attack.place) == control


@pytest.mark.parametrize(
    ("names", "value", "said"),
    [
        (["teacher", "recipe"], {}, "KeyError: 'label_noise'"),
        (["augment", "transforms"], [{}], "TypeError: 'dict' object is not callable"),
        (["loss"], {}, "KeyError: '_target_'"),
        (["student", "num_classes"], 10**12, "RuntimeError: .*allocate"),
        (["student"], TIMM | {"name": "resnet18", "features_only": True, "feature_cls": "os.system"}, "AssertionError"),
    ],
)
def test_settings_that_cannot_be_built_are_one_line(attack, names, value, said):
    node = attack.config
    for name in names[:-1]:
        node = node[name]
    node[names[-1]] = value
    attack.write()
    rule = rf"^run must have settings that can be built, got {attack.folder}: [^\n]*{said}[^\n]*$"
    with pytest.raises(ValueError, match=rule):
        measure(compose([f"run={attack.folder}"], "eval"))


def test_so_is_a_scheme_that_lacks_a_setting(attack):
    attack.config["scheme"] = {"name": "born_again"}
    attack.write()
    with pytest.raises(ValueError, match=r"^scheme: BornAgain\.__init__\(\) missing 1 [^\n]*'generations'$"):
        measure(compose([f"run={attack.folder}"], "eval"))


def test_a_run_without_a_checkpoint_that_would_fetch_weights_is_not_continued(attack):
    dataset = {key: attack.config["dataset"][key] for key in ("num_classes", "input_shape")}
    attack.config["student"] = TIMM | dataset | {"name": "resnet18", "pretrained": True}
    attack.write(status="interrupted")
    shutil.rmtree(attack.folder / "checkpoints")
    rule = "resume must be a run with a checkpoint where student.pretrained=true, since nothing is downloaded for it"
    with pytest.raises(ValueError, match=rf"^{rule}, got none in .*/checkpoints; run its command again$"):
        resumed(attack)


@pytest.mark.parametrize("way", [evaluated, resumed])
def test_a_file_without_an_end_is_not_read(attack, way):
    table = {"_target_": "kdexp.data.table.load", "file": "/dev/zero", "label": "y", "data_dir": "/"}
    attack.config["dataset"]["source"] = table
    attack.write(status="interrupted" if way is resumed else "completed")
    with pytest.raises(ValueError, match=r"^dataset.source.file must be a file or a folder, got /dev/zero$"):
        way(attack)
