"""What the README shows is run."""

import re
import shlex
from pathlib import Path

import pytest

from kdexp.config import check, compose

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CLUSTERS = (ROOT / "docs" / "clusters.md").read_text()
SEARCH = (ROOT / "docs" / "search.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^ {4}(?:[A-Z_]+=\S+ )*kdexp-train (.*?)(?: +#.*)?$", README + CLUSTERS + SEARCH, re.MULTILINE)


def test_the_loop_of_ones_own_runs():
    (block,) = [block for block in BLOCKS if "optimizer.step()" in block]
    names: dict = {}
    exec(block, names)
    assert names["loss"].isfinite()


@pytest.mark.slow
def test_the_whole_experiment_as_a_library_runs(tmp_path, monkeypatch, store, capsys):
    (block,) = [block for block in BLOCKS if "kdexp.train" in block]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDEXP_STORE_DIR", str(store))
    names: dict = {}
    exec(block, names)
    assert names["results"]["status"] == "completed"
    assert (tmp_path / "my_run" / "results.json").exists()


def first_values(arguments: list[str]) -> list[str]:
    """The first job of a sweep."""
    begun = [re.sub(r"=(?:tag\(log, )?interval\(([^,]*),.*", r"=\1", argument) for argument in arguments]
    return [argument if "[" in argument else argument.split(",")[0] for argument in begun]


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith(("--", "resume=")) and "my_conf" not in c])
def test_every_command_composes_and_passes_the_checks(tmp_path, command):
    check(
        compose(
            first_values([a for a in shlex.split(command) if not a.startswith(("-", "hydra", "+hydra"))]),
            output_dir=tmp_path,
        )
    )


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 10
