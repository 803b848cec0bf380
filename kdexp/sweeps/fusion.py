"""Which jobs can share one process."""

from kdexp.config.identity import fingerprint
from kdexp.config.require import Values
from kdexp.training.settings import TERM_KEYS, is_one_process


def fusion_key(values: Values) -> str | None:
    """Identifies what jobs must have in common to share data and teacher in one process (`kdexp.sweeps`).

    Args:
        values: the configuration of one, in plain values.

    Returns:
        None for a job that cannot: of several processes or devices, of a scheme, or compiled.
    """
    if not is_one_process(values["trainer"]) or values["scheme"] or values["trainer"]["compile"]:
        return None
    content = {key: values[key] for key in ("task", "teacher", "trainer", "data_dir", "store_dir", "quick")}
    for group, of_the_run in (("dataset", "subset_seed"), ("augment", "seed")):
        content[group] = {key: value for key, value in values[group].items() if key != of_the_run}
    if values["feature_loss"]:  # which of the teacher's features are read
        content["student"] = values["student"]
        content["feature_loss"] = {
            name: {key: value for key, value in term.items() if key not in TERM_KEYS}
            for name, term in values["feature_loss"].items()
        }
    return fingerprint(content)
