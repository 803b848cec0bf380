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
    r"\blearners?\b(?!`)|\bfrozen(: (nn.Module|Teacher)|\.networks)|losses import term": "student, teacher, build_term",
    r"\b(distill_alone|trained_once|kept_answers|facts)\b": "train_control, load_or_train, run_metadata",
}


@pytest.mark.parametrize("word", WORDS)
def test_an_old_word_does_not_come_back(word):
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate((ROOT / path).read_text().splitlines(), start=1)
        if re.search(word, line)
    ]
    assert not found, f"say {WORDS[word]}: {found}"
