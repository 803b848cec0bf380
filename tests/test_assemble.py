from dataclasses import replace

import pytest

from kdexp.assemble import Data, _weights_file
from kdexp.config import compose


@pytest.mark.parametrize("part", ["train_inputs", "train_target", "test_inputs", "test_target"])
def test_a_change_of_any_part_of_the_data_changes_their_digest(tmp_path, part):
    config = compose(["experiment=smoke"], output_dir=tmp_path)
    data, changed = Data(config), Data(config)
    tensor = getattr(changed._source, part).clone()
    tensor[0] = (tensor[0] + 1) % 10
    changed._source = replace(changed._source, **{part: tensor})
    assert data.content == Data(config).content
    assert data.content != changed.content


def trained(tmp_path, *recipe):
    """Where the teacher of this recipe is kept, and the labels that it learns from."""
    config = compose(["experiment=smoke", *(f"teacher.recipe.{word}" for word in recipe)], output_dir=tmp_path)
    data = Data(config)
    labels = data.for_teacher(config.teacher).splits.train.target
    return _weights_file(config.teacher, config, data), tuple(labels.tolist())


def test_a_teacher_is_another_where_its_labels_are_and_only_there(tmp_path):
    clean = trained(tmp_path)
    assert trained(tmp_path, "subset_seed=3") == clean
    assert trained(tmp_path, "label_noise_kind=pair") == clean
    noisy = [
        trained(tmp_path, "label_noise=0.4"),
        trained(tmp_path, "label_noise=0.4", "label_noise_kind=pair"),
        trained(tmp_path, "label_noise=0.4", "subset_seed=3"),
    ]
    assert len({place for place, _ in (clean, *noisy)}) == len({labels for _, labels in (clean, *noisy)}) == 4
    pairs = zip(clean[1], noisy[1][1], strict=True)
    assert {(wrong - right) % 10 for right, wrong in pairs} == {0, 1}
