"""The settings in conf/loss against the papers' own, written down here a second time."""

import pytest
from test_laws import LOSSES

from kdexp.config.compose import compose, plain
from kdexp.experiment.losses import build_term
from kdexp.training.settings import TERM_KEYS

# Weight of the cross entropy, weight of the method, temperature (None: it has none of its own to set).
PUBLISHED = {
    "ctkd": (0.1, 0.9, None),
    "ctkd_ls": (0.1, 9, None),
    "deit_hard": (0.5, 0.5, None),
    "dist": (1, 2, 4),
    "dkd": (1, 1, 4),
    "dkd_ls": (1, 9, 4),
    "kd": (0.1, 0.9, 4),
    "kd_ls": (0.1, 9, 2),
    "label_smoothing": (0, 1, None),
    "matched_smoothing": (0.1, 0.9, 4),
    "mlkd": (0.1, 0.9, 4),
    "mse": (0, 1, None),
    "nkd": (1, 1, 1),
    "nkd_cifar": (1, 1, 3),
    "permuted_kd": (0.1, 0.9, 4),
    "rslad": (0, 1, None),
    "tf_kd": (0.9, 0.1, 20),
    "ttm": (1, 45, 10),
    "wsld": (1, 2.5, 2),
    "wttm": (1, 4, 5),
}
UNPUBLISHED = {"bce_kd", "dist_ls", "entropy_kd", "jsd", "power_divergence", "reverse_kl"}


def composed(*overrides):
    return compose([*overrides], output_dir="unused")


def test_every_loss_is_published_or_known_not_to_be():
    assert sorted([*PUBLISHED, *UNPUBLISHED]) == LOSSES


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_loss_alone_gives_the_published_ratio_and_temperature(name):
    cross_entropy, method, temperature = PUBLISHED[name]
    config = composed(f"loss={name}")
    hard, soft = config.alpha, (1 - config.alpha) * build_term(config.loss).weight
    assert hard * method == pytest.approx(soft * cross_entropy)
    if temperature is not None:
        assert config.temperature == temperature
        assert build_term(config.loss).loss.temperature == temperature
    else:
        assert "temperature" not in config.loss.published


@pytest.mark.parametrize("name", sorted(UNPUBLISHED - {"dist_ls"}))
def test_a_loss_without_a_published_setting_has_that_of_kd(name):
    config = composed(f"loss={name}")
    assert (config.alpha, config.temperature, config.loss.weight) == (0.1, 4.0, 1.0)


def test_the_command_line_wins():
    config = composed("loss=ttm", "alpha=0.3", "temperature=2", "loss.weight=7")
    assert (config.alpha, config.temperature, config.loss.temperature) == (0.3, 2, 2)
    assert build_term(config.loss).weight == 7


def test_only_dkd_warms_up_over_20_epochs():
    for name in LOSSES:
        soft = build_term(composed(f"loss={name}").loss)
        first = soft.weight / 20 if name in ("dkd", "dkd_ls") else soft.weight
        assert soft.weight_at(0, 240) == pytest.approx(first)
        assert soft.weight_at(19, 240) == soft.weight


@pytest.mark.parametrize("name", [name for name in LOSSES if name.endswith("_ls")])
def test_the_inner_loss_has_the_settings_that_it_has_alone(name):
    # Neither can take the other's yaml as it is: weights are keys of a whole loss, not of an inner one.
    alone = plain(composed(f"loss={name.removesuffix('_ls')}", "temperature=3").loss)
    inner = plain(composed(f"loss={name}", "temperature=3").loss.loss)
    assert inner == {key: value for key, value in alone.items() if key not in (*TERM_KEYS, "published")}
