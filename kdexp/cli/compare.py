"""``kdexp-compare``: what came out of runs and sweeps, as a table, a CSV file and a page to show to others."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from kdexp.cli import program
from kdexp.config import exits
from kdexp.config.compose import HYDRA_VERSION_BASE, one_line
from kdexp.config.untrusted import printable


def run(
    folders: Sequence[str], where: Sequence[str], sort: str | None, out: str | None, acceptable: str | None = None
) -> list[tuple[str, Path]]:
    """Compare runs: print the table, write the files of `kdexp.report.artifacts`. For the settings: conf/compare.yaml.

    Returns:
        What each file is, and where.

    Raises:
        ValueError: a folder does not exist or holds no run, or where or sort names what no run has.
    """
    from kdexp.report.artifacts import write
    from kdexp.report.comparison import Comparison
    from kdexp.report.runs import find, matching
    from kdexp.report.terminal import show_comparison

    if not folders:
        raise ValueError("folders must be run or sweep folders, got nothing")
    places = [Path(folder) for folder in folders]
    found, unread = find(places)
    for line in unread:
        print(f"skipped: {printable(line)}", file=sys.stderr)
    if not found:
        raise ValueError(f"folders must hold at least one run, got {' '.join(folders)}")
    comparison = Comparison(matching(found, where), sort, acceptable)
    show_comparison(comparison)
    folder = Path(out) if out else places[0] if len(places) == 1 else Path()
    return write(comparison, folder, source=[*folders, *(f"where={w}" for w in where)], unread=unread)


@hydra.main(version_base=HYDRA_VERSION_BASE, config_path="pkg://kdexp.conf", config_name="compare")
def _compare(config: DictConfig) -> None:
    try:
        written = run(config.folders, config.where, config.sort, config.out, config.acceptable)
    except (ValueError, OSError) as error:
        exits.leave(exits.WRONG_INPUT, one_line(error))
    for what, path in written:
        print(f"{what:<14}{printable(path)}")


def _with_folders() -> None:
    """Folders are given as they are, and ``where`` may be given several times and hold what Hydra would take apart."""
    given = sys.argv[1:]
    folders = [word for word in given if word[:1] != "-" and ("=" not in word or Path(word).is_dir())]
    wheres = [word.removeprefix("where=") for word in given if word.startswith("where=")]
    others = [word for word in given if word not in folders and not word.startswith("where=")]
    sys.argv[1:] = [*others, *_quoted("folders", folders), *_quoted("where", wheres)]
    _compare()


def _quoted(key: str, words: list[str]) -> list[str]:
    return [f"{key}={json.dumps(words)}"] if words else []


def main() -> None:
    """The command."""
    program.program(_with_folders)


if __name__ == "__main__":
    main()
