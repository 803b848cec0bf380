"""What a configuration of masks refuses before anything is loaded."""

import pytest

from kdexp.config.compose import compose
from kdexp.experiment.check import check


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["dataset=shapes", "dataset.kind=multilabel"],
            "dataset.kind must be multiclass or binary .*, got multilabel",
        ),
        (["dataset=shapes", "task.dice_weight=-1"], r"task.dice_weight must be >= 0, got -1"),
        (["dataset=shapes", "task.dice_weight=much"], r"task.dice_weight must be >= 0, got much"),
        (["dataset=shapes", "task.distill_void=maybe"], r"task.distill_void must be true or false, got maybe"),
        (["dataset=shapes", "task.tile=0"], r"task.tile must be null or at least 1, got 0"),
        (["dataset=shapes", "task.tile=large"], r"task.tile must be a whole number of pixels, got large"),
        (["dataset=shapes", "task.tile_overlap=1.5"], r"task.tile_overlap must be a whole number of pixels, got 1.5"),
        (
            ["dataset=shapes", "task.tile=64", "task.tile_overlap=64"],
            r"task.tile_overlap must be in \[0, 64\), below task.tile, got 64",
        ),
        (
            ["dataset=shapes", "augment=crop_flip"],
            r"augment.transforms must move masks as they move images \(kdexp.data.joint_augment\) with dataset=shapes, "
            "got kdexp.data.augment.RandomCrop",
        ),
        (["dataset=shapes", "augment=mixup"], "augment.transforms must move masks .*, got kdexp.data.augment.Mixup"),
        (
            ["dataset=shapes", "augment@teacher.recipe.augment=crop_flip"],
            "teacher.recipe.augment.transforms must move masks .*",
        ),
        (
            ["dataset=digits", "augment=shapes"],
            "augment.transforms must need no masks with dataset=digits, got kdexp.data.joint_augment.HorizontalFlip",
        ),
    ],
)
def test_what_does_not_fit_the_targets_is_refused_in_one_line(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check(compose(overrides, output_dir=tmp_path))


@pytest.mark.parametrize("name", ["shapes", "chase_db1"])
def test_a_data_set_of_masks_names_its_task_and_passes_the_checks(tmp_path, name):
    config = compose([f"dataset={name}", "teacher=unet", "student=mobilenet_unet"], output_dir=tmp_path)
    assert config.task._target_ == "kdexp.tasks.segmentation.Segmentation"
    check(config)
