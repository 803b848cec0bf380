"""The settings of Lightning's Trainer."""

from collections.abc import Mapping

from kdexp.config.compose import plain
from kdexp.config.require import Group, Values
from kdexp.training.settings import Trainer

_TRAINER_KEYS = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "precision",
    "limit_train_batches",
    "limit_val_batches",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "sync_batchnorm",
    "log_every_n_steps",
)


def trainer_settings(trainer: Trainer, feature_loss: Mapping[str, Values], epochs: int) -> Group:
    """What of conf/trainer is Lightning's, with the strategy that the feature losses need.

    Args:
        trainer: the run's.
        feature_loss: the settings of each, by its name.
        epochs: how many the training has.
    """
    settings = {key: value for key, value in plain(trainer).items() if key in _TRAINER_KEYS}
    settings["max_epochs"] = epochs
    several = settings["strategy"] == "ddp" or (
        settings["strategy"] == "auto" and settings["devices"] not in (1, "auto")
    )
    if several and any(loss.get("init_fraction") for loss in feature_loss.values()):
        # While a term trains alone, what the others train has no gradient, and DDP would wait for it.
        settings["strategy"] = "ddp_find_unused_parameters_true"
    return settings
