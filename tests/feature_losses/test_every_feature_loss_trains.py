"""A short run of every feature distillation loss on digits, in this process."""

import pytest
from test_feature_laws import FEATURE_LOSSES, OF_ATTENTION

from kdexp.config.compose import compose
from kdexp.experiment.run import run

# Means over positions: of 8 x 8 pixels each counts for sixteen of the 32 x 32 that the published weights are for, and
# the term drowns the others.
WEIGHT = {"at": 10, "nst": 1}


@pytest.mark.parametrize("name", [name for name in FEATURE_LOSSES if name not in OF_ATTENTION])
def test_a_student_of_every_representation_loss_is_above_chance(name, store, tmp_path):
    config = compose(
        ["experiment=smoke", "dataset=digits", f"feature_loss={name}", "tracking=none", "trainer.max_epochs=8",
         "teacher.recipe.max_epochs=8", "optimizer.lr=0.01",
         *([f"feature_loss.{name}.weight={WEIGHT[name]}"] if name in WEIGHT else [])],
        output_dir=tmp_path,
        store_dir=store,
    )  # fmt: skip
    assert run(config)["metrics"]["test"]["last"]["acc"] > 0.4  # chance is 0.1
