"""What is imported when: programs, messages and pages start without torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def said(code: str) -> list[str]:
    """The lines that a fresh interpreter writes; ``loaded(*modules)`` says which of them are imported in it."""
    before = "import sys\n\ndef loaded(*modules):\n    return [name for name in modules if name in sys.modules]\n\n"
    done = subprocess.run([sys.executable, "-c", before + code], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_programs_start_without_torch():
    """--help and shell completion import the program's module; a page of results needs no torch at all."""
    modules = [
        *(f"kdexp.cli.{name}" for name in ("train", "eval", "doctor", "compare", "cache")),
        "kdexp.sweeps.job_supervisor",
        "kdexp.results",
        "kdexp.report.page",
    ]
    code = (
        "from importlib import import_module\n"
        f"for module in {modules}:\n"
        "    import_module(module)\n"
        "    print(module, loaded('torch', 'wandb', 'pytorch_lightning'))\n"
    )
    assert said(code) == [f"{module} []" for module in modules]


def test_a_wrong_setting_is_found_without_torch():
    settings = ["seeds=1", "loss=kdd", "alpha=2", "teacher.recipe.max_epochs=0", "tracking.wandb=x"]
    code = (
        "from kdexp.config.compose import compose\nfrom kdexp.experiment.check import check\n"
        f"for setting in {settings}:\n"
        "    try:\n"
        "        check(compose(['experiment=smoke', setting], output_dir='x'))\n"
        "    except ValueError:\n"
        "        print(setting, loaded('torch', 'sklearn', 'timm'))\n"
    )
    assert said(code) == [f"{setting} []" for setting in settings]


ROBUSTNESS = {
    "robustness.n_resamples=3": "robustness.n_resamples must be at least 100, got 3",
    "robustness.corruptions.severities=[9]": "robustness.corruptions.severities must be of 1 to 5, got 9",
    "robustness.noise_levels.kinds.uniform_noise=3": (
        "robustness.noise_levels.kinds.uniform_noise must be settings, got 3"
    ),
    "robustness.attacks.samples=0": "robustness.attacks.samples must be null or at least 1, got 0",
    "robustness.calibration.bins=0": "robustness.calibration.bins must be at least 1, got 0",
    "robustness.representations.train_samples=0": "robustness.representations.train_samples must be at least 1, got 0",
    "+robustness.shift.pair=x": ("robustness.shift: DatasetShift.__init__() got an unexpected keyword argument 'pair'"),
}


@pytest.mark.parametrize(
    "check",
    [
        "check.check_values(compose.compose(['experiment=smoke', *given], output_dir='x'))",
        "next(finished_robustness.robustness(compose.compose(given, 'eval', run='x')))",
    ],
    ids=["train", "eval"],
)
def test_a_wrong_setting_of_a_robustness_report_is_found_without_torch(check):
    code = (
        "from kdexp.config import compose\nfrom kdexp.experiment import check, finished_robustness\n"
        f"for setting in {list(ROBUSTNESS)}:\n"
        "    given = ['robustness=all', setting]\n"
        "    try:\n"
        f"        {check}\n"
        "    except ValueError as error:\n"
        "        print(error, loaded('torch', 'numpy', 'sklearn'))\n"
    )
    assert said(code) == [f"{message} []" for message in ROBUSTNESS.values()]


def test_a_program_that_ends_does_not_leave_the_import_of_packages_behind(tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(100)\n")
    code = (
        "from kdexp.sweeps import subprocess_runner; subprocess_runner._HEAVY = ('slow',); subprocess_runner.warm_up()"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    # What it started has the same standard output: this waits for both.
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, timeout=50)


def test_losses_need_nothing_but_torch():
    code = (
        "import sys, kdexp.losses.kd\n"
        "sys.exit(any(m in sys.modules for m in ('hydra', 'omegaconf', 'wandb', 'pytorch_lightning', 'torchmetrics')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("missing", [[], ["greenlet", "optuna"]], ids=["all is installed", "without extras"])
def test_jobs_are_forked_from_a_process_that_has_all_of_the_code_and_knows_which(missing):
    code = (
        f"import sys; sys.modules |= dict.fromkeys({missing})\n"
        "import gc, pkgutil, threading, kdexp.sweeps.preload\n"
        "from kdexp.config.identity import own_source\n"
        "names = [m.name for m in pkgutil.walk_packages(kdexp.__path__, 'kdexp.')]\n"
        "print(len(names), [n for n in names if n not in sys.modules])\n"
        "print(own_source.cache_info().currsize, threading.active_count(), 'timm' in sys.modules)\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    optional = ["optuna_study", "shared_experiment", "shared_process"]
    left_out = [f"kdexp.sweeps.{name}" for name in optional] if missing else []
    modules = len(list((Path(__file__).parents[1] / "kdexp").rglob("*.py")))
    assert done.stdout == f"{modules - 1} {left_out}\n1 1 False\nTrue True\n"


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
    ids=["kdexp's", "the user's", "the user's other way to say it"],
)
def test_threads_that_wait_do_not_spin_for_long_unless_the_user_says_so(given, found):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | given
    code = "import kdexp, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(found)
