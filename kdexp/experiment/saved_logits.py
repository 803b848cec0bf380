"""A teacher's logits as a file."""

import logging
from pathlib import Path

import torch

from kdexp.experiment.experiment import Experiment
from kdexp.progress_log import paced
from kdexp.teacher.outputs_file import SPLITS, Table, write

log = logging.getLogger(__name__)


def save_logits(experiment: Experiment, file: Path) -> None:
    """Write what the teacher says, at T = 1, of every sample of the student's splits as it is, by its id.

    Args:
        experiment: its teacher is trained first if need be.
        file: .safetensors, see `kdexp.teacher.outputs_file.read`; float32.

    Raises:
        ValueError: there is no teacher, or it says something other than rows of logits.
    """
    teacher, data, place = experiment.teacher, experiment.data, experiment.device
    if teacher is None:
        raise ValueError(
            f"alpha must be < 1 for kdexp-cache export: a control has no teacher, got {experiment.config.alpha}"
        )
    if data.is_dense or "images" in data.task.supports:
        rule = "must be of labels for kdexp-cache export, one a sample"
        raise ValueError(f"task {rule}, got {experiment.config.task['_target_']}")
    teacher.to(place)
    tables: dict[str, Table] = {}
    for split in SPLITS:
        batches = data.student.eval_batches(split, place)
        logits = [teacher(batch.inputs).logits.cpu() for batch in paced(batches, f"teacher: logits of {split}")]
        tables[split] = Table(getattr(data.student.splits, split).index, torch.cat(logits))
    write(file, tables)
    log.info("logits of %s samples: %s", " + ".join(str(len(table.values)) for table in tables.values()), file)
