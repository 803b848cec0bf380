"""What scripts/reproduce_cifar100.py composes and prints, from cells that are written by hand."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from kdexp.config.compose import compose
from kdexp.experiment.check import check

SCRIPT = Path(__file__).parents[2] / "scripts" / "reproduce_cifar100.py"
spec = importlib.util.spec_from_file_location("reproduce_cifar100", SCRIPT)
reproduce = sys.modules["reproduce_cifar100"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reproduce)


def cell(method, seed, last, teacher=None):
    return {"pair": "a-b", "method": method, "seed": seed, "last": last, "teacher": teacher}


def test_numbers_stand_beside_the_published_ones_with_differences_and_paired_gains():
    cells = [cell("control", seed, last) for seed, last in ((0, 69.0), (1, 70.0), (2, 71.0))]
    cells += [cell("kd", seed, last, 72.5) for seed, last in ((0, 71.0), (2, 72.0))]
    cells += [cell("dkd", 3, 73.25, 72.5)]  # a seed that no control has
    rows = reproduce.table("a-b", cells, {"teacher": 72.0, "control": 69.5, "kd": 71.0}, {"dkd"}).splitlines()
    assert rows[0] == "### a-b"
    assert rows[2].count("|") == rows[3].count("|") == rows[4].count("|") == 8
    assert rows[4:] == [
        "| teacher | 1 | 72.50 | 72.00 | +0.50 |  |  |",
        "| control | 3 | 70.00 ± 1.00 | 69.50 | +0.50 |  |  |",
        "| kd | 2 | 71.50 ± 0.71 | 71.00 | +0.50 | +1.50 ± 0.71 | +1.50 |",
        "| dkd * | 1 | 73.25 |  |  |  |  |",
    ]


def test_a_finished_cell_is_kept_and_one_of_other_settings_is_refused(tmp_path):
    one = reproduce.Cell("a-b", "kd", 0, tmp_path)
    assert not reproduce.finished(one, ["seed=0"])
    one.path.parent.mkdir()
    one.path.write_text(json.dumps({"settings": ["seed=0"]}))
    assert reproduce.finished(one, ["seed=0"])
    with pytest.raises(ValueError, match=r"^--out must hold cells of the same settings, got .*: seed=0, seed=1$"):
        reproduce.finished(one, ["seed=1"])


def test_the_published_numbers_are_of_methods_and_networks_that_there_are():
    conf = SCRIPT.parents[1] / "conf"
    published = reproduce.published()
    assert len(published) == 11
    assert published["resnet56-resnet20"]["kd"] == 70.66
    assert published["wrn_40_2-shufflenetv1"]["dkd"] == 76.70
    for pair, numbers in published.items():
        assert numbers.keys() <= {"teacher", *reproduce.METHODS}
        for network in pair.split("-"):
            assert (conf / "student" / f"{network}.yaml").is_file()
    for choices in reproduce.OF_PAIRS.values():
        assert {pair for pairs in choices.values() for pair in pairs} <= published.keys()


@pytest.mark.parametrize("method", ["control", "kd", "dkd", "kd_ls", "ctkd", "dist", "reviewkd", "crd"])
def test_a_method_composes_at_the_published_recipe(tmp_path, method):
    settings = reproduce.settings_of("wrn_40_2-shufflenetv1", method, 1, reproduce.SCALES["gpu"], ["trainer=cpu"])
    config = compose(settings, output_dir=tmp_path)
    check(config)
    total = reproduce.METHODS[method].total
    rate, decay = config.optimizer.lr, config.optimizer.weight_decay
    assert (rate, decay) == (pytest.approx(0.01 * total), pytest.approx(5e-4 / total))
    assert (config.trainer.max_epochs, config.teacher.recipe.max_epochs) == (240, 240)
    assert (config.dataset.batch_size, config.seed, config.augment.seed) == (64, 1, 0)
    assert config.augment.views is None  # a new one in every epoch, with cached outputs, too
    assert config.teacher.recipe.optimizer.lr == 0.05
    assert list(config.teacher.recipe.scheduler.milestone_fractions) == [150 / 240, 180 / 240, 210 / 240]


def test_what_the_papers_set_for_a_pair_and_the_length_of_warm_ups(tmp_path):
    gpu, cpu = reproduce.SCALES["gpu"], reproduce.SCALES["cpu"]
    found = {
        pair: compose(reproduce.settings_of(pair, "dkd", 0, gpu), output_dir=tmp_path).loss.nckd_weight
        for pair in ("resnet56-resnet20", "vgg13-vgg8", "resnet32x4-resnet8x4")
    }
    assert found == {"resnet56-resnet20": 2, "vgg13-vgg8": 6, "resnet32x4-resnet8x4": 8}
    short = compose(reproduce.settings_of("resnet20-resnet8", "dkd", 0, cpu), output_dir=tmp_path)
    assert short.loss.nckd_weight == 2
    assert short.loss.warmup_epochs == max(1, round(20 * short.trainer.max_epochs / 240))


def test_the_estimate_is_that_of_the_networks_size():
    # resnet20 of 40.8 million multiply-accumulates for 32 x 32 images: 3 * 2 * 40.8e6 * 64 = 15.7e9.
    assert reproduce.estimate("resnet56-resnet20", 240).startswith(
        "resnet56-resnet20: 15.7 GFLOP a step, 183,840 steps, 2.9 PFLOP. Estimate for an H100"
    )
