"""A program's entry: its arguments, its errors in one line, its exit code."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kdexp import __version__, results, signals
from kdexp.config import loader
from kdexp.config.compose import one_line
from kdexp.config.exits import WRONG_INPUT, PlainRecord, leave
from kdexp.config.untrusted import check_folder
from kdexp.experiment.ranks import rank

_WRONG = (HydraException, ConfigCompositionException, OmegaConfBaseException, YAMLError, ValueError, OSError)


def program(entry: Callable[[], None]) -> None:
    """Run a Hydra entry point from the command line; end with one line and an exit code on a wrong setting."""
    if "--version" in sys.argv[1:]:  # Hydra would print its own
        print(f"kdexp {__version__}")
        return
    full_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing; what is printed is up to us
    logging.raiseExceptions = False  # a log file on a full disk must not fill the console too
    _open_closed_streams()
    logging.setLogRecordFactory(PlainRecord)
    loader.install()
    with signals.obeyed():
        try:
            _arrange_arguments()
            _continue_run()
            entry()
        except _WRONG as error:
            if full_traceback or signals.interruption(error) is not None:
                raise
            leave(WRONG_INPUT, one_line(error))


def _open_closed_streams() -> None:
    """After ``>&-``: what is printed goes nowhere, and no other file becomes the standard output."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for as long as the process lives)


def _arrange_arguments() -> None:
    """Put the settings behind the flags: Hydra's parser wants them side by side.

    Raises:
        ValueError: a flag that does not exist, which may be a setting that was typed with dashes.
    """
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word[:1] == "~" or ("=" in word and word[:1] != "-"))
    _, rest = get_args_parser().parse_known_args(sys.argv[1:])
    unknown = [word for word in rest if word[:1] == "-"]  # settings may be left behind a word such as `build`
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0]
        raise ValueError(f"there is no flag {unknown[0]}; a setting is typed without dashes: {name}=VALUE")


def run_in_output_dir() -> None:
    """``output_dir=DIR`` alone: Hydra's log and configuration belong there, too."""
    typed = [word for word in sys.argv[1:] if word.startswith(("output_dir=", "hydra.run.dir="))]
    if typed and typed[-1].startswith("output_dir=") and not {"-m", "--multirun"} & set(sys.argv):
        sys.argv.append(f"hydra.run.dir={typed[-1].removeprefix('output_dir=')}")


def _continue_run() -> None:
    """``resume=DIR``: run in that folder, and leave the composed configuration there alone."""
    given = [argument for argument in sys.argv[1:] if argument.startswith("resume=")]
    if not given or given[-1] == "resume=null" or rank() != 0:  # a child rank is told its folder
        return
    beside = ("-", "tracking=", "tracking.", "data_dir=", "store_dir=")  # where, and not what
    others = [a for a in sys.argv[1:] if a not in given and not a.startswith(beside)]
    if others:
        rule = "takes every setting but data_dir, store_dir and tracking from the run and must stand alone"
        raise ValueError(f"resume {rule}, got {' '.join(others)}")
    folder = Path(given[-1].removeprefix("resume=").strip("'\"")).absolute()
    results.read(folder, "resume")
    check_folder(folder, "resume")  # before Hydra opens the log there
    sys.argv += [f'hydra.run.dir="{folder}"', "hydra.output_subdir=null"]
