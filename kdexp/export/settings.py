"""The settings of ``kdexp-export``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdexp.config.require import is_count, is_number, require

EXPORT = "export.json"
"""What an export says of its file, beside it."""

FORMATS = sorted(path.stem for path in Path(__file__).with_name("formats").glob("[!_]*.py"))
"""What a student can be written as: the files of `kdexp.export.formats`, which say with which bits."""

TOLERANCES = {"none": 1e-3, "fp16": 2e-2, "int8_static": 0.25, "int8_dynamic": 0.25, "qat": 0.1}
"""How far a file's outputs may be from the network's, by how it is quantised; see `kdexp.export.parity`."""


@dataclass(frozen=True)
class Calibration:
    """What int8_static looks at to find the range of each activation.

    Attributes:
        samples: of the training split, drawn at random; all where it has fewer.
        seed: of the choice.
    """

    samples: int
    seed: int


@dataclass(frozen=True)
class Qat:
    """The fine-tuning of quantize=qat.

    Attributes:
        epochs: of the training split.
        learning_rate: of AdamW; it falls linearly to 0.
    """

    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Export:
    """See conf/export.yaml.

    Attributes:
        format: one of `FORMATS`.
        quantize: one of `TOLERANCES`, which not every format can.
        preprocessing: whether the file takes inputs as the data set stores them.
        calibration: see there.
        qat: see there.
        tolerance: of parity; None: that of `TOLERANCES`.
        threads: of the processor that the file and the network it is compared with may use.
    """

    format: str
    quantize: str
    preprocessing: bool
    calibration: Calibration
    qat: Qat
    tolerance: float | None
    threads: int

    @property
    def largest_error(self) -> float:
        """The tolerance of parity."""
        return TOLERANCES[self.quantize] if self.tolerance is None else self.tolerance


def check_out(out: Path) -> None:
    """See that a folder is one for an export: nothing that is somebody's is replaced in it or sent from it.

    Raises:
        ValueError: it has other things than an export.
    """
    is_new = not os.path.lexists(out) or (out.is_dir() and (not any(out.iterdir()) or (out / EXPORT).is_file()))
    require(is_new, "out", f"must be a new or empty folder, or one with the {EXPORT} of an export in it", out)


def of(values: Mapping[str, Any]) -> Export:
    """The settings, checked.

    Args:
        values: conf/export.yaml as plain values; other keys than those of `Export` are not looked at.

    Raises:
        ValueError: one line with the setting, the rule and the value.
    """
    for name in ("calibration", "qat"):
        require(isinstance(values[name], Mapping), name, "must have settings of its own", values[name])
    calibration, qat = Calibration(**values["calibration"]), Qat(**values["qat"])
    own = {name: values[name] for name in ("format", "quantize", "preprocessing", "tolerance", "threads")}
    require(own["format"] in FORMATS, "format", f"must be one of {', '.join(FORMATS)}", own["format"])
    require(own["quantize"] in TOLERANCES, "quantize", f"must be one of {', '.join(TOLERANCES)}", own["quantize"])
    require(type(own["preprocessing"]) is bool, "preprocessing", "must be true or false", own["preprocessing"])
    for name, count in (
        ("threads", own["threads"]),
        ("calibration.samples", calibration.samples),
        ("qat.epochs", qat.epochs),
    ):
        require(is_count(count), name, "must be a whole number of at least 1", count)
    require(type(calibration.seed) is int, "calibration.seed", "must be a whole number", calibration.seed)
    rate, tolerance = qat.learning_rate, own["tolerance"]
    require(is_number(rate) and rate > 0, "qat.learning_rate", "must be > 0", rate)
    is_bound = tolerance is None or (is_number(tolerance) and tolerance > 0)
    require(is_bound, "tolerance", "must be null or > 0", tolerance)
    return Export(**own, calibration=calibration, qat=qat)
