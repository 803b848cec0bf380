"""Sweeps over conditions of the training data, of made-up runs whose answers are counted by hand."""

from kdexp.report.comparison import Comparison
from kdexp.report.runs import find

SHARES = (0.1, 0.5, 1.0)
# Control and gain of the student at each fraction of the data; a seed adds to both alike, and a little to the gain.
CONTROL, GAIN = (0.60, 0.70, 0.80), (0.10, 0.05, 0.02)


def few_data(folder, write_run, *, seeds=6, gains=GAIN):
    """A sweep over fractions of the data: the student gains ``gains``, and 0.1 point more with each seed."""
    for seed in range(seeds):
        for share, control, gain in zip(SHARES, CONTROL, gains, strict=True):
            data, luck = {"train_fraction": share, "label_noise": 0.0}, seed / 100
            write_run(folder / f"control-{share}-{seed}", alpha=1.0, seed=seed, acc=control + luck, data=data)
            acc = control + luck + gain + seed / 1000
            write_run(folder / f"kd-{share}-{seed}", seed=seed, acc=acc, val=share, data=data)


def wrong_labels(folder, write_run, *, seeds=6):
    """The same sweep with noisy labels among all the data."""
    for seed in range(seeds):
        for rate, control, student in ((0.2, 0.7, 0.74), (0.4, 0.5, 0.58)):
            data = {"train_fraction": 1.0, "label_noise": rate}
            write_run(folder / f"control-{rate}-{seed}", alpha=1.0, seed=seed, acc=control, data=data)
            write_run(folder / f"kd-{rate}-{seed}", seed=seed, acc=student + seed / 1000 * rate, val=0.1, data=data)


def compared(folder):
    return Comparison(find([folder])[0])
