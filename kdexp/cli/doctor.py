"""``kdexp-doctor``: look for what is wrong with an experiment, in a few steps of it, before hours are spent on it."""

import sys
from collections.abc import Iterator

import hydra
from omegaconf import DictConfig

from kdexp.cli import program
from kdexp.config import exits
from kdexp.config.compose import HYDRA_VERSION_BASE, one_line, plain
from kdexp.config.require import Values
from kdexp.doctor.finding import Finding
from kdexp.experiment.check import check
from kdexp.schemes.base import runs_in_order

# It takes what kdexp-train takes, and leaves nothing where it is called.
_OVERRIDES = (
    "hydra.mode=RUN",
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=console",
    "hydra/help=doctor",
)


def run(values: Values) -> Iterator[Finding]:
    """Check one experiment. No run folder is made; a teacher that is not in the store yet is trained and kept there.

    Of a scheme of several runs it is the first.

    Args:
        values: a checked configuration, in plain values.

    Yields:
        Findings in the order of the table.

    Raises:
        ValueError: a value with which the experiment cannot be built.
        FileNotFoundError: data or weights are not where the configuration says.
    """
    name, first = next(runs_in_order(values))

    from kdexp.doctor.run_checks import run_checks  # here: --help must not wait for torch
    from kdexp.experiment.experiment import Experiment

    if name:
        advice = "the later runs need its student and are not checked"
        yield Finding("scheme", f"{values['scheme']['name']}: the first run, {name}", "note", advice)
    yield from run_checks(Experiment(first))


@hydra.main(version_base=HYDRA_VERSION_BASE, config_path="pkg://kdexp.conf", config_name="train")
def _doctor(config: DictConfig) -> None:
    from kdexp.doctor.printing import show

    findings: list[Finding] = []
    try:
        if config.resume:
            raise ValueError(f"resume must be null for kdexp-doctor, got {config.resume}")
        check(config)
        for finding in run(plain(config)):
            findings.append(finding)
    except (ValueError, OSError) as error:
        if findings:
            show(findings, unfinished=True)
        exits.leave(exits.WRONG_INPUT, one_line(error))
    show(findings)
    if any(finding.verdict == "error" for finding in findings):
        sys.exit(exits.FAILED)


def _with_own_overrides() -> None:
    given = sys.argv[1:]
    if {"-m", "--multirun"} & set(given):
        raise ValueError("kdexp-doctor checks one configuration, got --multirun")
    # Before the user's overrides, which may change them, and beside them, as Hydra's parser wants it.
    first = next((place for place, word in enumerate(given) if "=" in word and word[0] != "-"), len(given))
    sys.argv[1:] = [*given[:first], *_OVERRIDES, *given[first:]]
    _doctor()


def main() -> None:
    """The command."""
    program.program(_with_own_overrides)


if __name__ == "__main__":
    main()
