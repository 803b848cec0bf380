from dataclasses import replace

import pytest

from kdexp.assemble import Data
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
