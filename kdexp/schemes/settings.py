"""Rules of conf/scheme."""

from typing import Any

from kdexp.config.require import is_number, require


def check_adversarial(name: str, scheme: Any) -> None:
    """All but the rules of `kdexp.robustness.attacks.Attack`, which takes its settings for numbers."""
    beta, begin, share = (scheme.get(key, 0) for key in ("beta", "begin", "adversarial_weight"))
    require(is_number(beta) and beta >= 0, f"{name}.beta", "must be >= 0", beta)
    require(is_number(begin) and 0 <= begin < 1, f"{name}.begin", "must be in [0, 1)", begin)
    require(is_number(share) and 0 <= share <= 1, f"{name}.adversarial_weight", "must be in [0, 1]", share)
    for key, value in scheme.get("attack", {}).items():
        numeric = key in ("eps", "steps", "step_size")
        require(not numeric or is_number(value), f"{name}.attack.{key}", "must be a number", value)
