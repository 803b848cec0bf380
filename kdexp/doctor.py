"""``kdexp-doctor``: look for what is wrong with an experiment, in a few steps of it, before hours are spent on it."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

from kdexp import launch, schemes
from kdexp.config import HYDRA_VERSION_BASE, check, one_line, plain

if TYPE_CHECKING:
    from kdexp.diagnosis import Finding

# It takes what kdexp-train takes, and leaves nothing where it is called.
_SETTINGS = (
    "hydra.mode=RUN",
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=console",
    "hydra/help=doctor",
)


def run(config: DictConfig) -> Iterator["Finding"]:
    """Examine one experiment. No run folder is made; a teacher that is not in the store yet is trained and kept there.

    Of a scheme of several runs it is the first.

    Args:
        config: as `kdexp.config.compose` or Hydra makes it.

    Yields:
        What is found, in the order of the table.

    Raises:
        ValueError: a setting breaks a rule.
        FileNotFoundError: data or weights are not where the settings say.
    """
    if config.resume:
        raise ValueError(f"resume must be null for kdexp-doctor, got {config.resume}")
    check(config)
    name, values = next(schemes.steps(plain(config)))

    from kdexp.diagnosis import Finding, examine  # here: --help must not wait for torch

    if name:
        advice = "the later ones need its student: they are not examined"
        yield Finding("scheme", f"{config.scheme.name}: the first run, {name}", "note", advice)
    yield from examine(OmegaConf.create(values))


def show(findings: Sequence["Finding"], *, unfinished: bool = False) -> None:
    """Print the table and how much is in it; unfinished when a wrong setting came between."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    from kdexp.terminal import screen

    colours = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}
    table = Table(box=SIMPLE)
    for name in ("check", "found", "verdict"):
        table.add_column(name, no_wrap=name != "found")
    for finding in findings:
        text = f"{finding.found}\n-> {finding.advice}" if finding.advice else finding.found
        table.add_row(finding.check, text, Text(finding.verdict, colours[finding.verdict]))
    console = screen()
    console.print(table)
    counts = {name: sum(finding.verdict == name for finding in findings) for name in ("error", "warning", "note")}
    total = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())
    console.print(f"{total}; not all checks were made" if unfinished else total)


@hydra.main(version_base=HYDRA_VERSION_BASE, config_path="pkg://kdexp.conf", config_name="train")
def _doctor(config: DictConfig) -> None:
    findings: list[Finding] = []
    try:
        for finding in run(config):
            findings.append(finding)
    except (ValueError, OSError) as error:
        if findings:
            show(findings, unfinished=True)
        launch.leave(launch.WRONG_INPUT, one_line(error))
    show(findings)
    if any(finding.verdict == "error" for finding in findings):
        sys.exit(launch.FAILED)


def _with_own_settings() -> None:
    given = sys.argv[1:]
    if {"-m", "--multirun"} & set(given):
        raise ValueError("kdexp-doctor examines one configuration, got --multirun")
    # Before the settings, which may change them, and beside them, as Hydra's parser wants it.
    first = next((place for place, word in enumerate(given) if "=" in word and word[0] != "-"), len(given))
    sys.argv[1:] = [*given[:first], *_SETTINGS, *given[first:]]
    _doctor()


def main() -> None:
    """The command."""
    launch.program(_with_own_settings)


if __name__ == "__main__":
    main()
