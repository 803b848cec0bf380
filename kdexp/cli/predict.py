"""``kdexp-predict``: what a finished run's student says of images, rows or texts."""

import re
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from kdexp.cli import program
from kdexp.config import exits
from kdexp.config.compose import HYDRA_VERSION_BASE, one_line, plain
from kdexp.config.require import Values, require
from kdexp.config.untrusted import printable
from kdexp.progress_log import importing


def predict(values: Values) -> int:
    """Predict and write; the number of files that could not be read.

    Args:
        values: conf/predict.yaml, as plain values.

    Raises:
        ValueError: a setting breaks a rule; one line.
        FileNotFoundError: the run or the inputs are not there.
    """
    for name, what in (("run", "the folder of a finished run or of a sweep"), ("inputs", "a file or a folder")):
        require(values[name] not in (None, ""), name, f"must be {what}", "nothing")
    accelerator = values["accelerator"]
    require(accelerator in ("auto", "cpu", "gpu"), "accelerator", "must be auto, cpu or gpu", accelerator)
    require(type(values["overwrite"]) is bool, "overwrite", "must be true or false", values["overwrite"])
    with importing():  # here: --help must not wait for torch
        from kdexp.experiment.networks import device_for
        from kdexp.export.prediction_files import write
        from kdexp.export.student import load
    student = load(str(values["run"]), setting="run")
    student.network.to(device_for(accelerator))
    out = values["out"]
    written = write(
        student,
        Path(str(values["inputs"])),
        None if out is None else Path(str(out)),
        column=values["column"],
        batch_size=values["batch_size"],
        overwrite=values["overwrite"],
    )
    print(printable(f"{written.samples:,} predicted: {written.table}"))
    if written.unread:
        print(f"{written.unread:,} of them could not be read: see the column error", file=sys.stderr)
    return written.unread


@hydra.main(version_base=HYDRA_VERSION_BASE, config_path="pkg://kdexp.conf", config_name="predict")
def _predict(config: DictConfig) -> None:
    try:
        unread = predict(plain(config))
    except (ValueError, OSError) as error:
        exits.leave(exits.WRONG_INPUT, re.sub("^x must", "inputs must", one_line(error)))
    if unread:
        sys.exit(exits.FAILED)


def main() -> None:
    """The command."""
    program.program(_predict)


if __name__ == "__main__":
    main()
