"""Which jobs can share one process."""

from collections.abc import Mapping
from typing import Any

from kdexp.config.identity import fingerprint
from kdexp.training.settings import TERM_KEYS, is_one_process


def fusion_key(config: Mapping[str, Any]) -> str | None:
    """Identifies what jobs must have in common to share data and teacher in one process (`kdexp.sweeps`).

    Returns:
        None for a job that cannot: of several processes or devices, of a scheme, or compiled.
    """
    if not is_one_process(config["trainer"]) or config["scheme"] or config["trainer"]["compile"]:
        return None
    content = {key: config[key] for key in ("teacher", "trainer", "data_dir", "store_dir", "quick")}
    for group, of_the_run in (("dataset", "subset_seed"), ("augment", "seed")):
        content[group] = {key: value for key, value in config[group].items() if key != of_the_run}
    if config["feature_loss"]:  # which of the teacher's features are read
        content["student"] = config["student"]
        content["feature_loss"] = {
            name: {key: value for key, value in term.items() if key not in TERM_KEYS}
            for name, term in config["feature_loss"].items()
        }
    return fingerprint(content)
