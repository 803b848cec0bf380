"""The field's words: old ones of kdexp's own, which a search for the usual term would miss, do not come back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = [
    path.relative_to(ROOT)
    for pattern in ("kdexp/**/*.py", "hydra_plugins/**/*.py", "conf/**/*.yaml", "scripts/*.py", "docs/*.md", "*.md")
    for path in sorted(ROOT.glob(pattern))
]

# Old word -> what the field says.
WORDS = {
    r"kept answers?": "cached teacher outputs",
    r"teachers? (is|are) asked": "the teacher runs: a forward pass",
    r"ask(s|ed|ing)? (its|the|a) teacher": "run the teacher",
    r"representation (loss|term)": "feature distillation loss",
    r"(wrong|hidden) labels": "noisy labels, unlabeled samples",
    r"chosen point": "best trial",
    r"\brehears": "dry build",
    r"\bexamin": "evaluate",
    r"\bheeds\b": "depends on",
    r"\bsurety\b": "significance",
    r"not finite": "NaN or Inf",
    r"less is better": "lower is better",
    r"\bAnswers\b|\bTurns\b|\bProbe\b|\bParts\b": "CachedOutputs, RoundRobin, InspectionCallback, Experiment",
    r"scheduler\.(milestones|warmup|final)\b": "milestone_fractions, warmup_ratio, min_lr_ratio",
    r"feature_loss\.\w+\.(alone|after)\b|\.is_alone\b": "init_fraction, weight_after_init, in_init_stage",
    r"cache=(exact|static)\b|label_noise_kind=pair\b|symmetric,pair\b": "per_epoch, unaugmented, pairflip",
    r"sweeper\.(trials|seeds)\b": "n_trials, final_seeds",
    r"\bcontrol=(auto|none)\b": "control=train, control=skip",
    r"robustness\.(resamples|confidence)\b|dataset\.resample\b": "n_resamples, confidence_level, class_sampling",
    r"\bstep_size[:=]|\.step_size\b|kinds\.\w+\.step\b": "abs_stepsize, rel_stepsize",
    r"\blearners?\b(?!`)|\bfrozen(: (nn\.Module|Teacher)|\.networks)|losses import term\b": "student, teacher",
    r"\b(distill_alone|trained_once|kept_answers|facts)\b": "train_control, load_or_train, run_metadata",
}

# Old key of files or of the command line -> today's.
KEYS = {
    r"\bace\b|\blargest_gap|mce_raw": "ece_adaptive, max_calibration_error, mce_unnormalized",
    r"\b[Dd]oses?\b|noise_dose|halving_dose|DoseCurve|_doses\b|\"area\"": "noise_levels, level_at_half_acc, mean_acc",
    r"robustness[.=]features\b|\bneighbours\b[:=]|\"(probe|knn)\"": "representations, n_neighbors, ..._acc",
    r"features_scale|applies_to: features": "tabular_eps_scale, applies_to: tabular",
    r"(?<!tabular\.)\bfeature_noise\b(?!\()": "tabular_noise",
    r"acc_minus_control": "acc_gain",
    r"\bsteps/|/ \"steps\"|\[\"steps\"\] =": "prior_runs, prior run",
    r"answers\.bin|card\.json|made_for|\b(keep|read)_card\b": "outputs.bin, metadata.json, created_for",
    r"worst_cell|\"cells\"|robustness/(cells|measures)": "worst_condition, conditions, metrics",
}
# Where older files are read, and what was renamed is told.
OLD_KEYS = ("renamed.py", "robustness_json.py", "cache_folders.py", "CHANGELOG.md")


def found(word: str, texts: list[Path]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()}"
        for path in texts
        for number, line in enumerate((ROOT / path).read_text().splitlines(), start=1)
        if re.search(word, line)
    ]


@pytest.mark.parametrize("word", WORDS)
def test_an_old_word_does_not_come_back(word):
    assert not found(word, TEXTS), f"say {WORDS[word]}"


@pytest.mark.parametrize("key", KEYS)
def test_an_old_key_does_not_come_back(key):
    assert not found(key, [path for path in TEXTS if path.name not in OLD_KEYS]), f"say {KEYS[key]}"
