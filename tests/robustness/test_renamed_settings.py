"""Settings of a robustness report under their older names: read from files, refused where somebody types them."""

import pytest

from kdexp.config.compose import compose, plain
from kdexp.config.renamed import before, upgrade, upgrade_override

TABULAR = "robustness.corruptions.kinds.tabular_noise"
NOISE = "robustness.noise_levels.kinds.gaussian_noise"


def composed(*overrides):
    values = plain(compose(["experiment=smoke", *overrides], output_dir="out"))
    del values["dataset"]["default_epochs"]  # in no older file
    return values


def test_a_file_of_an_older_kdexp_has_the_names_of_today():
    today = composed("robustness=all")
    older = before(today)
    noise = older["robustness"]["noise_dose"]["kinds"]["gaussian_noise"]
    assert noise["_target_"] == "kdexp.robustness.corruption.DoseCurve"
    assert noise["doses"] == today["robustness"]["noise_levels"]["kinds"]["gaussian_noise"]["levels"]
    assert "levels" not in noise
    assert older["robustness"]["features"]["neighbours"] == today["robustness"]["representations"]["n_neighbors"]
    assert older["robustness"]["attacks"]["features_scale"] == today["robustness"]["attacks"]["tabular_eps_scale"]
    for axis in ("noise_dose", "corruptions"):
        assert older["robustness"][axis]["kinds"]["feature_noise"]["applies_to"] == "features"
        assert "tabular_noise" not in older["robustness"][axis]["kinds"]
    assert upgrade(older) == upgrade(today) == today


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("robustness=noise_dose", "robustness=noise_levels"),
        ("robustness=[noise_dose,attacks]", "robustness=[noise_levels,attacks]"),
        ("robustness=quick,noise_dose", "robustness=quick,noise_levels"),
        ("robustness=[features,noise_dose]", "robustness=[representations,noise_levels]"),
        ("robustness.features.neighbours=3", "robustness.representations.n_neighbors=3"),
        ("robustness.attacks.features_scale=3", "robustness.attacks.tabular_eps_scale=3"),
        (
            "corruption@robustness.corruptions.kinds=[fog,feature_noise]",
            "corruption@robustness.corruptions.kinds=[fog,tabular_noise]",
        ),
        (
            "~robustness.corruptions.kinds.feature_noise.applies_to",
            "~robustness.corruptions.kinds.tabular_noise.applies_to",
        ),
        ("+robustness.noise_dose.kinds.gaussian_noise.doses=[0.1]", f"+{NOISE}.levels=[0.1]"),
    ],
)
def test_so_has_what_was_typed_then(old, new):
    assert upgrade_override(old) == new == upgrade_override(new)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("robustness=noise_dose", "there is no robustness=noise_dose; did you mean robustness=noise_levels? (of "),
        (
            "robustness.noise_dose.kinds.gaussian_noise.doses=[0.1]",
            f"there is no setting robustness.noise_dose.kinds.gaussian_noise.doses; did you mean {NOISE}.levels?",
        ),
        (f"{NOISE}.doses=[0.1]", f"there is no setting {NOISE}.doses; did you mean {NOISE}.levels?"),
        (
            "+robustness.noise_dose={kinds:{}}",
            "there is no setting robustness.noise_dose; did you mean robustness.noise_levels?",
        ),
        ("robustness=features", "there is no robustness=features; did you mean robustness=representations? (of "),
        (
            "robustness.features.neighbours=3",
            "there is no setting robustness.features.neighbours; did you mean robustness.representations.n_neighbors?",
        ),
        (
            "robustness.attacks.features_scale=3",
            "there is no setting robustness.attacks.features_scale; did you mean robustness.attacks.tabular_eps_scale?",
        ),
        (
            "corruption@robustness.corruptions.kinds=[feature_noise]",
            "there is no corruption=feature_noise; did you mean corruption=tabular_noise? (of ",
        ),
        (
            f"{TABULAR}.applies_to=features",
            f"there is no {TABULAR}.applies_to=features; did you mean {TABULAR}.applies_to=tabular?",
        ),
        (
            f"{NOISE}._target_=kdexp.robustness.corruption.DoseCurve",
            f"there is no {NOISE}._target_=kdexp.robustness.corruption.DoseCurve; did you mean "
            f"{NOISE}._target_=kdexp.robustness.corruption.LevelCurve?",
        ),
    ],
)
def test_who_types_an_old_name_is_told_the_new_one(typed, message):
    with pytest.raises(ValueError, match="; did you mean ") as caught:
        composed("robustness=all", typed)
    assert str(caught.value).startswith(message)
