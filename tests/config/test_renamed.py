"""Keys of older files: read under the names of today, known by those that they had; nobody types the old ones."""

from functools import reduce
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity
from kdexp.config.renamed import before, upgrade, upgrade_override, without_added
from kdexp.config.schema import with_defaults
from kdexp.report.runs import Run, matching

SCHEMES = [path.stem for path in sorted((Path(__file__).parents[2] / "conf" / "scheme").glob("*.yaml"))]


def composed(*overrides):
    """A configuration without how long a data set is trained on, which is in no older file and makes no other run."""
    values = plain(compose(["experiment=smoke", *overrides], output_dir="x"))
    for data in (values["dataset"], (values["scheme"] or {}).get("source", {})):
        data.pop("default_epochs", None)
    return values


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_of_a_file_that_knows_it_by_its_name_is_that_of_today(name):
    today = composed(f"scheme={name}", "alpha=1")
    old = before(today)
    assert without_added(today)["scheme"] == {
        key: v for key, v in today["scheme"].items() if key not in ("_target_", "teacher")
    }
    assert with_defaults(old)["scheme"] == upgrade(old)["scheme"] == today["scheme"] == upgrade(today)["scheme"]
    assert Identity(upgrade(old)).fingerprint == Identity(today).fingerprint
    assert (Identity(upgrade(old)).is_control, Identity(upgrade(old)).is_attacked) == (
        Identity(today).is_control,
        Identity(today).is_attacked,
    )
    assert Identity(today).is_control == (name not in ("pgd_at", "trades"))
    settings = Run(Path("x"), {"config": today, "overrides": []}, "completed").settings
    assert settings["scheme.name"] == name
    assert not {"scheme._target_", "scheme.teacher"} & settings.keys()


@pytest.mark.parametrize("teacher", ["cnn", "ensemble"])
def test_so_are_those_of_teachers_recipes(teacher):
    where = "teacher.members.first.recipe" if teacher == "ensemble" else "teacher.recipe"
    today = composed(
        f"teacher={teacher}",
        f"+scheme@{where}.scheme=trades" if teacher == "ensemble" else f"scheme@{where}.scheme=trades",
    )
    old = before(today)
    assert old != today == upgrade(old)


def test_a_scheme_of_ones_own_is_known_by_its_target():
    values = composed("scheme=ema")
    one, other = (
        {**values, "scheme": {**values["scheme"], "_target_": f"mine.{name}", "name": name}} for name in ("A", "ema")
    )
    for own in (one, other):
        assert {**without_added(own), "task": own["task"], "trainer": own["trainer"]} == own == upgrade(own)
    another = {**other, "scheme": {**other["scheme"], "_target_": "mine.B"}}
    assert Identity(another).fingerprint != Identity(other).fingerprint != Identity(values).fingerprint


# What has the setting, its old name, the new one, and a value.
KEYS = [
    ("scheduler=cosine", "scheduler.warmup", "scheduler.warmup_ratio", "0.1"),
    ("scheduler=cosine", "scheduler.final", "scheduler.min_lr_ratio", "0.1"),
    ("scheduler=multistep", "scheduler.milestones", "scheduler.milestone_fractions", "[0.5]"),
    ("teacher=cnn", "teacher.recipe.scheduler.warmup", "teacher.recipe.scheduler.warmup_ratio", "0.1"),
    ("robustness=noise_levels", "robustness.resamples", "robustness.n_resamples", "200"),
    ("robustness=noise_levels", "robustness.confidence", "robustness.confidence_level", "0.9"),
    ("dataset=digits", "dataset.resample", "dataset.class_sampling", "balanced"),
    ("dataset=breast_cancer", "dataset.task", "dataset.kind", "binary"),
    ("loss=kd", "loss.task", "loss.kind", "binary"),
    ("scheme=cross_domain", "scheme.source.task", "scheme.source.kind", "multiclass"),
    ("scheme=cross_domain", "scheme.source.resample", "scheme.source.class_sampling", "balanced"),
    (
        "robustness=attacks",
        "robustness.attacks.kinds.pgd_l2.step",
        "robustness.attacks.kinds.pgd_l2.rel_stepsize",
        "0.1",
    ),
    ("scheme=pgd_at", "scheme.attack.step_size", "scheme.attack.abs_stepsize", "0.01"),
    (
        "scheme@teacher.recipe.scheme=trades",
        "teacher.recipe.scheme.attack.step_size",
        "teacher.recipe.scheme.attack.abs_stepsize",
        "0.01",
    ),
    ("feature_loss=ab", "feature_loss.ab.alone", "feature_loss.ab.init_fraction", "0.2"),
    ("feature_loss=ab", "feature_loss.ab.after", "feature_loss.ab.weight_after_init", "0.5"),
]


def at(values, setting):
    return reduce(lambda node, name: node.get(name, {}), setting.split("."), values)


def refused(*overrides):
    with pytest.raises(ValueError, match="; did you mean ") as caught:
        composed(*overrides)
    return str(caught.value)


@pytest.mark.parametrize(("option", "old", "new", "value"), KEYS)
def test_a_key_of_an_older_file_is_read_and_known_as_it_was(option, old, new, value):
    today = composed(option, f"{new}={value}")
    file = before(today)
    assert at(file, old) == at(today, new) == OmegaConf.create(f"x: {value}").x
    assert at(file, new) == {}
    assert upgrade(file) == upgrade(today) == today
    assert with_defaults(file) == with_defaults(today)
    assert Identity(upgrade(file)).fingerprint == Identity(today).fingerprint
    assert upgrade_override(f"+{old}={value}") == f"+{new}={value}"
    assert upgrade_override(f"{new}={value}") == f"{new}={value}"


@pytest.mark.parametrize("sign", ["", "+", "++"])
@pytest.mark.parametrize(("option", "old", "new", "value"), KEYS)
def test_an_old_key_is_refused_with_the_new_one(option, old, new, value, sign):
    assert refused(option, f"{sign}{old}={value}") == f"there is no setting {old}; did you mean {new}?"


@pytest.mark.parametrize(("option", "old", "new", "value"), KEYS)
def test_so_is_one_in_a_yaml_of_ones_own(option, old, new, value, tmp_path):
    own = OmegaConf.create()
    OmegaConf.update(own, old, OmegaConf.create(f"x: {value}").x)
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(f"# @package _global_\ndefaults: [smoke, _self_]\n{OmegaConf.to_yaml(own)}")
    search = f"hydra.searchpath=['file://{tmp_path}']"
    assert refused(search, option, "experiment=mine") == f"there is no setting {old}; did you mean {new}?"


@pytest.mark.parametrize("option", ["+sweep=search", "hydra/sweeper=search"])
@pytest.mark.parametrize(("old", "new"), [("trials=60", "n_trials"), ("seeds=[0,1]", "final_seeds")])
def test_so_is_one_of_a_search(option, old, new):
    name = old.partition("=")[0]
    said = f"there is no setting hydra.sweeper.{name}; did you mean hydra.sweeper.{new}?"
    assert refused(option, f"hydra.sweeper.{old}") == said
    assert refused(option, f"+hydra.sweeper.{old}") == said


def test_so_is_one_of_a_search_in_a_yaml_of_ones_own(tmp_path):
    file = tmp_path / "sweep" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\ndefaults: [search, _self_]\nhydra: {sweeper: {trials: 60}}\n")
    said = "there is no setting hydra.sweeper.trials; did you mean hydra.sweeper.n_trials?"
    assert refused(f"hydra.searchpath=['file://{tmp_path}']", "+sweep=mine") == said


@pytest.mark.parametrize(("old", "new"), [("auto", "train"), ("none", "skip")])
def test_so_is_what_kdexp_eval_did_with_a_missing_control(old, new):
    with pytest.raises(ValueError, match=rf"^there is no control={old}; did you mean control={new}\?$"):
        compose([f"control={old}"], "eval")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("dataset.resample=balanced", "setting dataset.resample; did you mean dataset.class_sampling"),
        ("teacher.cache=none,static", "teacher.cache=static; did you mean teacher.cache=unaugmented"),
        (
            "dataset.label_noise_kind=pair",
            "dataset.label_noise_kind=pair; did you mean dataset.label_noise_kind=pairflip",
        ),
    ],
)
def test_so_is_one_by_which_runs_are_chosen(where, said):
    run = Run(Path("x"), {"config": composed(), "overrides": []}, "completed")
    with pytest.raises(ValueError, match=rf"^there is no {said}\?$"):
        matching([run], [where])


# The setting, its old value and the new one.
VALUES = [
    ("teacher.cache", "exact", "per_epoch"),
    ("teacher.cache", "static", "unaugmented"),
    ("dataset.label_noise_kind", "pair", "pairflip"),
    ("teacher.recipe.label_noise_kind", "pair", "pairflip"),
]


@pytest.mark.parametrize(("setting", "old", "new"), VALUES)
def test_so_is_a_value(setting, old, new):
    today = composed(f"{setting}={new}", "dataset.label_noise=0.2", "teacher.recipe.label_noise=0.2")
    file = before(today)
    assert at(file, setting) == old
    assert upgrade(file) == upgrade(today) == today
    assert Identity(upgrade(file)).fingerprint == Identity(today).fingerprint
    assert upgrade_override(f"{setting}={old}") == f"{setting}={new}"
    assert refused(f"{setting}={old}") == f"there is no {setting}={old}; did you mean {setting}={new}?"


def test_a_scheduler_of_ones_own_keeps_its_words():
    own = {"scheduler": {"_target_": "mine.poly", "warmup": 3}}
    assert upgrade(own) == own
    assert before({"scheduler": {"_target_": "mine.poly", "warmup_ratio": 3}})["scheduler"]["warmup_ratio"] == 3
    assert composed("scheduler._target_=mine.poly", "+scheduler.warmup=3")["scheduler"]["warmup"] == 3


def test_a_table_without_texts_is_what_it_was_before_there_were_texts(tmp_path):
    (tmp_path / "my.csv").write_text("a,b,kind\n" + "1.5,2,x\n2,1.5,y\n" * 8)
    table = ["source.label=kind", f"source.file={tmp_path / 'my.csv'}", "mean=[0,0]", "std=[1,1]", "input_shape=[2]"]
    for where, chosen in (("dataset", "dataset=csv"), ("scheme.source", "dataset@scheme.source=csv")):
        today = composed("scheme=cross_domain", chosen, *(f"{where}.{setting}" for setting in table))
        assert today["task"]["_target_"] == "kdexp.tasks.classification.Classification"
        own, older = today, without_added(today)
        for key in (*where.split("."), "source"):
            own, older = own[key], older[key]
        assert older == {key: value for key, value in own.items() if key not in ("text", "group")} != own
