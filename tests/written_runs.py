"""Run folders as kdexp-train leaves them, of made-up numbers."""

import csv
import json

import numpy as np

from kdexp import results
from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity

BASE = plain(compose(output_dir=""))
METRICS = ("acc", "precision", "recall", "f1", "auc")


def write_run(
    folder,
    *,
    acc=0.9,
    val=None,
    nll=None,
    last=None,
    seed=0,
    status="completed",
    teacher_acc=0.99,
    classes=3,
    key=None,
    data=None,
    **settings,
):
    """A run folder as kdexp-train leaves it, of made-up numbers.

    Args:
        folder: of the run.
        acc: on test at the best epoch; the other metrics are equal to it.
        val: on val at the best epoch; acc when not given.
        nll: on val at the best epoch; not there when not given.
        last: on test at the last epoch; acc when not given.
        seed: of the run.
        status: how it ended.
        teacher_acc: the accuracy of the teacher.
        classes: of the data set.
        key: of the job in its sweep.
        data: settings of the data set, without their prefix.
        settings: of the configuration; of a group the chosen option.
    """
    groups = {"dataset": "digits", "teacher": "cnn", "student": "mlp", "loss": "kd"}
    choices = {group: settings.pop(group, option) for group, option in groups.items()} | {"feature_loss": "none"}
    schedule = {"kind": "constant", "final": None}
    config = BASE | {
        "alpha": 0.1,
        "temperature": 4.0,
        "seed": seed,
        "choices": choices,
        "feature_loss": {},
        "scheme": {},
        "alpha_schedule": schedule,
        "temperature_schedule": schedule,
        "output_dir": str(folder),
        "dataset": BASE["dataset"]
        | {
            "name": choices["dataset"],
            "classes": None,
            "num_classes": classes,
            "subset_seed": seed,
            "split_seed": 0,
            "source": {"data_dir": "/data"},
        },
        "teacher": {"name": choices["teacher"], "recipe": {"seed": 1}},
        "student": {"name": choices["student"]},
        "loss": {"_target_": f"kdexp.losses.{choices['loss']}"},
        **settings,
    }
    config["dataset"] |= data or {}
    typed = {k: v for k, v in {**settings, "seed": seed, **choices}.items() if (k, v) not in groups.items()}
    typed |= {f"dataset.{name}": value for name, value in (data or {}).items()}
    record = {
        "schema_version": 2,
        "status": status,
        "choices": choices,
        "alpha": config["alpha"],
        "seed": seed,
        "temperature": config["temperature"],
        "key": key,
        "is_control": Identity(config).is_control,
        "config": config,
        "fingerprint": Identity(config).fingerprint,
        "control_fingerprint": Identity(config).control_fingerprint,
        "overrides": [f"{name}={value}" for name, value in typed.items() if name != "feature_loss"],
    }
    if status == "completed":
        at = {"val": {"best": val, "last": val}, "test": {"best": acc, "last": last}}
        record["metrics"] = {
            split: {epoch: dict.fromkeys(METRICS, acc if value is None else value) for epoch, value in of.items()}
            for split, of in at.items()
        }
        if nll is not None:
            record["metrics"]["val"]["best"]["nll"] = nll
        record |= {"samples": {"train": 1000, "val": 100, "test": 200}, "epochs": {"best": 1, "last": 2}}
        record |= {"model": {"parameters": 1000, "macs": 900}, "cost": {"seconds": {"fit": 3.0, "total": 4.5}}}
        record["curves"] = curves(acc, classes)
        if not record["is_control"]:
            measured = dict.fromkeys(METRICS, teacher_acc)
            model = {"parameters": 50_000, "macs": 80_000}
            record["teacher"] = {
                "val": measured,
                "test": measured,
                "curves": curves(teacher_acc, classes),
                "model": model,
            }
    else:
        record["error"] = "Diverged: the loss is not finite"
    results.write(folder, record)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "train/loss", "val/acc", "val/loss"])
        writer.writeheader()
        for epoch in range(3):
            writer.writerow({"epoch": epoch, "train/loss": 2 - acc * epoch / 2, "val/acc": acc * (0.8 + 0.1 * epoch)})
    return record


def curves(acc, classes):
    """As results.json keeps them, of a test split of 200 samples."""
    fpr = [0.0, *np.linspace(0, 1, 201).round(4).tolist()]
    tpr = [0.0, *(np.linspace(0, 1, 201) ** (1 - min(acc, 0.999))).round(4).tolist()]
    names = ["macro", *map(str, range(classes))] if classes <= 20 else ["macro"]
    kept = {"fpr": fpr, "roc": dict.fromkeys(names, tpr), "auc": dict.fromkeys(names, round((1 + acc) / 2, 4))}
    right = round(200 * acc / classes)
    confusion = np.full((classes, classes), 1) + np.eye(classes, dtype=int) * right
    return kept | ({"confusion": confusion.tolist()} if classes <= 100 else {})


def write_report(folder, *, control=0.8, student=0.85, teacher=0.95, noisy=0.5, probe=None):
    """A robustness.json of made-up numbers: clean accuracies, the fraction of them that noise leaves, a probe's.

    Args:
        folder: of the run.
        control: clean accuracy of the control; likewise student, teacher.
        noisy: fraction of its accuracy that a network keeps under noise and corruption, or one a role.
        probe: role -> accuracy of the linear probe on another data set.
    """
    clean = {"teacher": teacher, "control": control, "student": student}
    left = {role: clean[role] * (noisy[role] if isinstance(noisy, dict) else noisy) for role in clean}

    def entry(values):
        value = values["student"] - values["control"]
        return {**values, "difference": {"value": value, "low": value - 0.01, "high": value + 0.01}}

    probe = probe or dict.fromkeys(clean, 0.7)
    error = {role: 1 - value for role, value in left.items()}
    conditions = [
        {"axis": axis, "name": name, "family": "noise", "level": level, "model": role, "acc": values[role]}
        for axis, name, level, values in (
            ("clean", "clean", 0, clean),
            ("corruptions_lite", "fog", 1, clean),
            ("corruptions_lite", "fog", 5, left),
            ("corruptions_lite", "blur", 5, clean),
            ("noise_levels", "gaussian_noise", 0.1, clean),
            ("noise_levels", "gaussian_noise", 0.5, left),
            ("attacks", "pgd_linf", 0.03, left),
        )
        for role in clean
    ]
    bins = {"count": [1.0, 2.0], "confidence": [0.3, None], "accuracy": [0.25, None]}
    report = {
        "schema_version": 2,
        "dataset": "digits",
        "samples": 100,
        "models": {role: {} for role in clean},
        "settings": {"confidence_level": 0.95},
        "notes": ["shift left out"],
        "conditions": conditions,
        "metrics": {
            "clean": {"acc": entry(clean)},
            "corruptions_lite": {"mce_unnormalized": entry(error)},
            "noise_levels": {"gaussian_noise": {"mean_acc": entry(left)}},
            "representations": {
                "digits": {"linear_probe_acc": entry(clean)},
                "mnist8": {"linear_probe_acc": entry(probe)},
            },
        },
        "attack_checks": [{"model": "student", "check": "more steps", "holds": False, "detail": "1 -> 2"}],
        "reliability": {role: {"plain": bins, "scaled": bins} for role in clean},
    }
    (folder / "robustness.json").write_text(json.dumps(report))
