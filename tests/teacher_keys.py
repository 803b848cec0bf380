"""Where a configuration's trained teacher lies, for tests."""

from pathlib import Path

from omegaconf import DictConfig

from kdexp.config import quick
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.keys import teacher_key, weights_file


def teacher_file(config: DictConfig) -> Path:
    """The file of its weights in the store, whether or not it is there."""
    content, mark = Experiment(config).data.content, quick.mark(config.quick)
    key = teacher_key(config.teacher, config.dataset, config.task, content, mark)
    return weights_file(config.teacher, config.store_dir, key)
