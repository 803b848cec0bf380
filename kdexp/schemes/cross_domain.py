"""From one domain to another."""

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import OmegaConf

from kdexp.config.require import Values, require
from kdexp.data.settings import Dataset, check_classes
from kdexp.schemes.base import Scheme
from kdexp.schemes.prior_run_settings import as_teacher, prior_run
from kdexp.teacher.settings import TEACHER_KEYS


@dataclass(frozen=True, kw_only=True)
class CrossDomain(Scheme):
    """The teacher learns from the labelled data of the source, the student from its logits on the target.

    Attributes:
        source: the settings of the source, a data set with the target's classes and shapes.
    """

    source: Values

    def check(self, setting: str, dataset: Dataset) -> None:
        """Check that the source is like the target."""
        super().check(setting, dataset)
        setting, source = f"{setting}.source", OmegaConf.create(dict(self.source))
        check_classes(setting, source.classes, source.num_classes)
        for key in ("kind", "num_classes", "input_shape"):
            wanted = getattr(dataset, key)
            require(source[key] == wanted, f"{setting}.{key}", f"must be the target's, {wanted}", source[key])

    def prior_runs(self, values: Values) -> Iterator[tuple[str, Values]]:
        """The teacher's training on the source, by its recipe; its seeds, too: it is the same for all students."""
        teacher, source = values["teacher"], self.source
        recipe = teacher["recipe"]
        network = {key: value for key, value in teacher.items() if key not in TEACHER_KEYS}
        yield prior_run(
            values,
            "teacher",
            student=network,
            dataset={**source, "batch_size": recipe["batch_size"], "subset_seed": recipe["subset_seed"]},
            augment={"views": None, "seed": recipe["seed"], "transforms": [], **(recipe.get("augment") or {})},
            optimizer=recipe["optimizer"],
            scheduler=recipe["scheduler"],
            label_smoothing=recipe["label_smoothing"],
            seed=recipe["seed"],
            trainer={
                **values["trainer"],
                "max_epochs": recipe["max_epochs"],
                "precision": recipe["precision"],
                "gradient_clip_val": recipe["gradient_clip_val"],
                "channels_last": recipe["channels_last"],
                **({"monitor": recipe["monitor"]} if "monitor" in recipe else {}),  # an older kdexp's has none
            },
            alpha=1.0,
            alpha_schedule={"kind": "constant", "final": None},
            feature_loss={},
        )
        learned = as_teacher(values, "teacher", network)
        yield "", {**values, "teacher": {**learned, "mean": source["mean"], "std": source["std"]}}
