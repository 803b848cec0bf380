"""What the README shows is run."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
from ast import literal_eval
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path

import numpy as np
import own_data
import pytest
import torch
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig
from saved_students import saved

from kdexp.config import quick
from kdexp.config.compose import HYDRA_VERSION_BASE, compose, plain
from kdexp.config.loader import Loader
from kdexp.experiment.check import check
from kdexp.experiment.dry_build import dry_build
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.run import run
from kdexp.export import settings as export_settings
from kdexp.robustness import configured

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_loop_of_ones_own_runs():
    (block,) = [block for block in BLOCKS if "optimizer.step()" in block]
    names: dict = {}
    exec(block, names)
    assert names["loss"].isfinite()


def test_the_whole_experiment_as_a_library_runs(tmp_path, monkeypatch, store, capsys):
    (block,) = [block for block in BLOCKS if "results = run(" in block]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDEXP_STORE_DIR", str(store))
    names: dict = {}
    exec(block, names)
    assert names["results"]["status"] == "completed"
    assert (tmp_path / "my_run" / "results.json").exists()


def test_the_notebook_runs(tmp_path, monkeypatch, store, capsys):
    (block,) = [block for block in BLOCKS if "Experiment.compose(" in block]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDEXP_STORE_DIR", str(store))
    exec(block, {})
    assert "DKD()" in capsys.readouterr().out


def test_a_student_is_loaded_and_predicts(tmp_path, monkeypatch, capsys):
    (block,) = [block for block in BLOCKS if "kdexp.load(" in block]
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "my_run", "dataset=digits", "student=cnn_small")
    own_data.images(tmp_path, 2)
    (tmp_path / "images").rename("photos")
    exec(block, {})
    assert len(literal_eval(capsys.readouterr().out)) == 4


@pytest.mark.slow
def test_a_student_is_loaded_without_kdexp(tmp_path):
    (block,) = [block for block in BLOCKS if "timm.create_model(" in block]
    experiment, network = saved(tmp_path / "my_run", "dataset=digits", "student=timm", "student.name=test_resnet")
    (tmp_path / "kdexp.py").write_text("raise ImportError('kdexp is not here')\n")
    (tmp_path / "block.py").write_text(f"{block}print(json.dumps(logits.tolist()))\n")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "block.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    mean, std = (torch.tensor(list(experiment.config.dataset[name])).view(-1, 1, 1) for name in ("mean", "std"))
    expected = network((torch.zeros(1, 1, 8, 8) - mean) / std)
    label, logits = done.stdout.splitlines()
    torch.testing.assert_close(torch.tensor(json.loads(logits)), expected, rtol=0, atol=1e-5)
    assert label == str(int(expected.argmax()))


# Every command of the documentation, as it is typed.


@dataclass(frozen=True)
class Command:
    """A command, its variables and continued lines joined, and its comment."""

    text: str
    comment: str

    @property
    def words(self) -> list[str]:
        return [word for word in shlex.split(self.text) if not re.match(r"[A-Z_]+=", word)]

    @property
    def needs(self) -> list[str]:
        """What it needs that is not in a fresh clone, and hours, as the comment says it: ``needs MNIST, hours``."""
        found = re.search(r"needs ([^()]+)", self.comment)
        return found[1].split(", ") if found else []


def commands_of(text: str) -> list[Command]:
    """In blocks that are indented by four spaces."""
    joined = re.sub(r"\\\n +", "", text)
    lines = re.findall(r"^ {4}((?:[A-Z_]+=\S+ )*kdexp-.*)$", joined, re.MULTILINE)
    return [Command(*re.fullmatch(r"(.*?)(?: +# (.*))?", line).groups(default="")) for line in lines]


def hints_of(text: str) -> list[Command]:
    """In the comments of a yaml file."""
    comments = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    found = re.findall(r"(kdexp-train(?: [+\w@/.]+=\S+)+)(?: \((.*?)\))?", comments)
    return [Command(text.rstrip(".,;:)"), comment) for text, comment in found]


DOCS = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
COMMANDS = [pytest.param(one, id=f"{name}: {one.text}") for name, text in DOCS.items() for one in commands_of(text)]
COMMANDS += [
    pytest.param(one, id=f"{path.stem}.yaml: {one.text}")
    for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml"))
    for one in hints_of(path.read_text())
]
FILES_OF = {"mnist8": "mnist"}
BUNDLED = ("digits", "breast_cancer", "synthetic", "shapes")
_LAUNCHER = re.compile(r"\+?hydra[/.]launcher\b")  # of other packages: tests/test_sweep_programs.py


def programs_and_words(command: Command) -> tuple[str, list[str]]:
    """The program, and the settings that it composes its configuration of."""
    program, *words = command.words
    if program == "kdexp-cache":
        program, words = f"{program} {words[0]}", words[1:]
    return program, [word for word in words if not (word.startswith("-") or _LAUNCHER.match(word))]


@cache
def grids_of(words: tuple[str, ...], *, is_sweep: bool) -> list[Mapping[str, list[str]]]:
    """The values of each setting that is given on the command line or by a preset; none of what runs no sweep."""
    with initialize_config_module("kdexp.conf", version_base=HYDRA_VERSION_BASE):
        loader = Loader(GlobalHydra.instance().config_loader().get_search_path())
        hydra = loader.load_configuration("train", list(words), RunMode.MULTIRUN).hydra
        if not (is_sweep or hydra.mode == RunMode.MULTIRUN):
            loader.load_configuration("train", list(words), RunMode.RUN)  # which takes no lists of values
            return []
        params, grids = (hydra.sweeper.get(key) or {} for key in ("params", "grids"))
        if "+sweep=budget" in words and any(word.startswith("student=") for word in words):
            grids = []  # a student that is typed stands in the place of the family
        found = []
        for grid in grids or [{}]:
            preset = [f"{key}={value}" for key, value in {**params, **grid}.items()]
            given = OverridesParser.create(loader).parse_overrides([*preset, *words])
            found.append({override.get_key_element(): values_of(override) for override in given})
    return found


def variants(words: list[str], *, is_sweep: bool) -> list[tuple[str, ...]]:
    """Jobs that show each value of what is swept, given on the command line or by a preset, at least once."""
    found: dict[tuple[str, ...], None] = {}
    for values in grids_of(tuple(words), is_sweep=is_sweep) or [{word: [word] for word in words}]:
        first = {key: typed[0] for key, typed in values.items()}
        found |= dict.fromkeys(tuple({**first, key: v}.values()) for key, typed in values.items() for v in typed)
        found[tuple(first.values())] = None
    return list(found)


def values_of(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.input_line]
    key = override.input_line.partition("=")[0]
    if override.is_interval_sweep():
        return [f"{key}={override.value().start}", f"{key}={override.value().end}"]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


@cache
def compose_and_check(words: tuple[str, ...]) -> DictConfig:
    config = compose(words, output_dir="run")
    check(config)
    return config


def kind_of(command: Command) -> str:
    """How it is tested here."""
    if {"--help", "--cfg", "--config-dir"} & set(command.words) or any(w.startswith("resume=") for w in command.words):
        return "run by other tests"
    return "trains" if programs_and_words(command)[0] in TRAINING else "reads"


@pytest.fixture
def files_of_ones_own(tmp_path, monkeypatch):
    """Small files of the names in docs/own_data.md, where the commands are typed."""
    monkeypatch.chdir(tmp_path)
    own_data.images(tmp_path, 50)
    (tmp_path / "images").rename("photos")
    kinds = [(f"photos/{name}/{i}.png", name) for name in own_data.CLASSES for i in range(50)]
    rows = [
        ("file", *own_data.CLASSES),
        *((file, *(int(name == one) for one in own_data.CLASSES)) for file, name in kinds),
    ]
    Path("labels.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    Path("my.csv").write_text("x,species\n" + "\n".join(f"{i},{own_data.CLASSES[i % 2]}" for i in range(100)))
    numbers, labels = np.arange(200.0).reshape(100, 2), np.arange(100) % 2
    questions = [("Where is it ?", "place"), ("How many are there ?", "number")] * 50
    Path("questions.csv").write_text("question,kind\n" + "\n".join(map(",".join, questions)))
    np.savez("my.npz", x=np.zeros((100, 8, 8, 3), np.uint8), y=labels)
    np.save("x.npy", numbers)
    np.save("y.npy", labels)
    (code,) = re.findall(r"`my_nets.py`\n\n```python\n(.*?)```", DOCS["own_data.md"], re.DOTALL)
    Path("my_nets.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("KDEXP_TRUST", "my_nets")


def write_parquet() -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra kdexp[parquet] is not installed")
    table = pytest.importorskip("pyarrow").table({"x": [0.0, 1.0] * 50, "kind": ["a", "b"] * 50})
    parquet.write_table(table, "my.parquet")


def write_huggingface() -> None:
    library = pytest.importorskip("datasets", reason="the extra kdexp[huggingface] is not installed")
    library.disable_progress_bars()
    features = library.Features({"image": library.Image(), "label": library.ClassLabel(names=list(own_data.CLASSES))}
                                | {"text": library.Value("string"), "x": library.Value("float32")})  # fmt: skip
    features["y"] = features["x"]
    rows = {"image": [f"photos/{own_data.CLASSES[i % 2]}/{i // 2}.png" for i in range(100)],
            "label": [i % 2 for i in range(100)], "text": [f"a text {i}" for i in range(100)],
            "x": [float(i) for i in range(100)], "y": [float(-i) for i in range(100)]}  # fmt: skip
    library.Dataset.from_dict(rows, features=features).save_to_disk("hf")


def write_needed(command: Command) -> None:
    if "parquet" in command.text:
        write_parquet()
    if "huggingface" in command.text:
        write_huggingface()


TRAINING = ("kdexp-train", "kdexp-doctor", "kdexp-cache build")


@pytest.mark.filterwarnings("ignore:loss=dkd:UserWarning")  # which the doctor is called for
@pytest.mark.parametrize("command", [one for one in COMMANDS if kind_of(*one.values) == "trains"])
@pytest.mark.usefixtures("files_of_ones_own")
def test_every_command_that_trains_composes_and_passes_the_checks(command):
    write_needed(command)
    _, words = programs_and_words(command)
    jobs = [compose_and_check(job) for job in variants(words, is_sweep="-m" in command.words)]
    if jobs[-1].trainer.accelerator != "gpu":
        dry_build(Experiment(jobs[-1]))  # its networks and losses, which fit each other
    needed = {job.dataset.name for job in jobs} | {job.scheme.source.name for job in jobs if job.scheme.get("source")}
    told = {re.sub("[-_]", "", need.lower()) for need in command.needs}
    for name in needed - {*BUNDLED, *own_data.EXAMPLES}:
        assert FILES_OF.get(name, name).replace("_", "") in told, f"the text must say: needs {name}"


# With quick=true.

QUICK = "quick=true"
MOST_JOBS = 8
"""Of a sweep that is run whole, as it is typed; of a larger one each value but seeds is trained in some job, unless a
command before has shown it. All of them whole would take half as long as all other tests."""

_NOT_HERE = {"GPUs", "a GPU", "SLURM", "a Ray cluster", "a file"} | {"the folder above"}  # tests/test_whole_way.py


def why_not(command: Command) -> str:
    """Why a command is composed and checked, but not run; empty of one that is run."""
    missing = _NOT_HERE & set(command.needs)
    if missing:
        return f"needs {missing.pop()}"
    launchers = [word.split("=")[1] for word in command.words if _LAUNCHER.match(word) and "/launcher=" in word]
    return "launcher of another package" if {"ray", "submitit_local"} & set(launchers) else ""


def how_quick(command: Command) -> str:
    """How much of a command is run with quick=true: all of it, its values, or nothing, and why."""
    if reason := why_not(command):
        return f"composed only: {reason}"
    program, words = programs_and_words(command)
    grids = grids_of((*words, QUICK), is_sweep="-m" in command.words)
    if not grids:
        return "whole" if program == "kdexp-train" else "whole, as a program"
    if "hydra/sweeper=search" in words or "+sweep=search" in words:
        is_short = not any(word.startswith("hydra.sweeper.n_trials=") for word in words)
        return "whole, as a program" if is_short else "values"
    jobs = sum(math.prod(map(len, values.values())) for values in grids)
    return "whole, as a program" if jobs <= MOST_JOBS else "values"


TRAINS = {one.values[0].text: one.values[0] for one in COMMANDS if kind_of(*one.values) == "trains"}
"""Each once: some stand in two places."""


@cache
def jobs_to_train() -> dict[str, list[tuple[str, ...]]]:
    """By command, of those that are not run as programs: the first job, and those with a value that is new."""
    found: dict[str, list[tuple[str, ...]]] = {}
    shown: set[str] = set()
    for command in TRAINS.values():
        if how_quick(command) not in ("whole", "values"):
            continue
        _, words = programs_and_words(command)
        grids = grids_of((*words, QUICK), is_sweep="-m" in command.words)
        jobs = found[command.text] = []
        for values in grids or [{word: [word] for word in (*words, QUICK)}]:
            swept = {key: typed[:1] if key == "seed" else typed for key, typed in values.items()}
            for number in range(max(map(len, swept.values()))):
                job = tuple(typed[number % len(typed)] for typed in swept.values())
                if not jobs or not shown.issuperset(job):
                    jobs.append(job)
                    shown.update(job)
    return found


@cache
def train_quickly(words: tuple[str, ...], store: Path) -> dict:
    """The results of a run; some commands have jobs in common."""
    trackers = [] if any(word.startswith("tracking=") for word in words) else ["tracking=none"]
    with tempfile.TemporaryDirectory() as folder:
        return run(compose([*words, *trackers], output_dir=f"{folder}/run", store_dir=store))


def smaller(words: tuple[str, ...]) -> list[str]:
    """Images of one's own in a twelfth of their pixels: the networks for whole ones are built by the test above."""
    own = {"dataset=image_folder", "dataset=image_csv"} & set(words)
    return ["dataset.source.size=64"] if own and not any("source.size=" in word for word in words) else []


def skip_without_data(command: Command) -> None:
    folders = {
        "MNIST": "MNIST",
        "Fashion-MNIST": "FashionMNIST",
        "CIFAR-100": "cifar-100-python",
        "CHASE_DB1": "CHASE_DB1",
        "TREC": "text-sentconv",
    }
    for need in command.needs:
        if need in folders and not Path(os.environ.get("KDEXP_DATA_DIR", ""), folders[need]).is_dir():
            pytest.skip(f"{need} is not in KDEXP_DATA_DIR")


@pytest.mark.filterwarnings("default")  # of 64 samples some metrics say that they mean little
@pytest.mark.parametrize("typed", [one for one in TRAINS.values() if not why_not(one)], ids=attrgetter("text"))
@pytest.mark.usefixtures("files_of_ones_own")
def test_a_command_runs_with_quick(typed, command, tmp_path, store):
    skip_without_data(typed)
    write_needed(typed)
    if how_quick(typed) == "whole, as a program":
        tracking = [] if typed.words[0] == "kdexp-doctor" else ["tracking=none"]
        out = command(*typed.words, QUICK, *tracking, KDEXP_DATA_DIR=os.environ.get("KDEXP_DATA_DIR", "data")).stdout
        check_program(typed, out, tmp_path)
        return
    for job in jobs_to_train()[typed.text]:
        found = train_quickly((*job, *smaller(job)), store)
        assert found["status"] == "completed"
        assert found["note"] == quick.NOTE
        measured = found["metrics"]["test"]["best"][found["measure"]]
        assert measured < 0 if found["measure"] == "elbo" else 0 <= measured <= 1
        assert found["samples"]["test"] <= quick.EVALUATED


def check_program(typed: Command, out: str, folder: Path) -> None:
    """What a command has left, where it was typed."""
    if typed.words[0] != "kdexp-train":
        assert {"kdexp-doctor": "ok", "kdexp-cache": "views of 128 samples"}[typed.words[0]] in out
        return
    (index,) = folder.glob("multirun/quick_*/sweep.json")
    jobs = json.loads(index.read_text())["jobs"]
    assert len(jobs) > 1
    assert {job["status"] for job in jobs} <= {"completed", "pruned"}
    assert (index.parent / "report.html").is_file()
    assert out.startswith(quick.NOTE)
    assert "its numbers mean nothing (quick=true)." in out


@pytest.mark.slow
def test_how_much_of_the_commands_runs_with_quick():
    assert Counter(map(how_quick, TRAINS.values())) == {
        "whole": 36,
        "whole, as a program": 12,
        "values": 26,
        "composed only: launcher of another package": 3,
        "composed only: needs SLURM": 2,
        "composed only: needs GPUs": 1,
        "composed only: needs a GPU": 1,
        "composed only: needs a Ray cluster": 1,
        "composed only: needs a file": 2,
        "composed only: needs the folder above": 1,
    }


@pytest.mark.parametrize("command", [one for one in COMMANDS if kind_of(*one.values) == "reads"])
def test_every_command_that_reads_what_runs_left_takes_its_settings(command):
    program, words = programs_and_words(command)
    assert command.needs or words == []
    if program == "kdexp-eval":
        config = compose([re.sub("^sweep=", "sweep_dir=", word) for word in words], "eval")
        assert (config.run is None) != (config.sweep_dir is None)
        if config.get("robustness"):
            configured.check(plain(config.robustness))
    elif program == "kdexp-predict":
        compose(words, "predict")
    elif program == "kdexp-compare":
        compose([word for word in words if "=" in word and not word.startswith("where=")], "compare")
    elif program == "kdexp-export":
        config = plain(compose(words, "export"))
        export_settings.of(config)
        if config.get("robustness"):
            configured.check(config["robustness"])
    else:
        compose(words, "cache")


@pytest.mark.parametrize("command", COMMANDS)
def test_no_shell_takes_a_command_apart(command):
    """Not even zsh, which looks for files that fit, as it takes brackets."""
    assert not re.search(r"[][{}()*?<>]", re.sub(r"'[^']*'|\"[^\"]*\"", "", command.text))


def test_how_many_commands_there_are():
    commands = [one.values[0] for one in COMMANDS]
    assert Counter(map(kind_of, commands)) == {"trains": 91, "reads": 28, "run by other tests": 6}
    assert sum(bool(command.needs) for command in commands) == 57, "more than a fresh clone has, or hours"
    assert sum("hours" in command.needs for command in commands) == 7
