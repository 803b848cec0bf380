"""Dependencies run one way; this reads the imports and keeps it so."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kdexp"
MODULES = sorted(path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py"))
CONFIG = {"hydra", "omegaconf"}
LIGHTNING = {"pytorch_lightning", "lightning_fabric", "lightning"}
PROGRAMS = {"kdexp.cli.train", "kdexp.cli.eval", "kdexp.cli.doctor", "kdexp.cli.compare", "kdexp.cli.cache"}
MAY_CONFIGURE = {"kdexp.config", "kdexp.sweeps.jobs", "kdexp.config.loader", "kdexp.config.quick", *PROGRAMS}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse((PACKAGE.parent / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def top(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_run_one_way(path):
    name, names = module_name(path), imported(path)
    if name not in MAY_CONFIGURE:
        assert not top(names) & CONFIG
    if name != "kdexp.experiment.tracking":
        assert "wandb" not in top(names)
    assert not names & PROGRAMS, "nothing imports a program"
    part = name.split(".")[1] if "." in name else ""
    ours = {n for n in names if n.startswith("kdexp.")}
    if part in ("losses", "feature_losses", "models"):
        assert not top(names) & LIGHTNING
        allowed = ["kdexp.contracts", f"kdexp.{part}"]
        if part == "feature_losses":
            allowed += ["kdexp.features", "kdexp.losses"]
        allowed = tuple(allowed)
        assert all(n.startswith(allowed) for n in ours), ours
    if part == "robustness":
        assert not top(names) & LIGHTNING
        allowed = ("kdexp.contracts", "kdexp.data.stateless_rng", "kdexp.losses", "kdexp.metrics", "kdexp.robustness")
        allowed += ("kdexp.config.require", "kdexp.config.trust")
        assert all(n.startswith(allowed) for n in ours), ours
    if part == "doctor":
        measures = name in ("kdexp.doctor.inspection", "kdexp.doctor.measurements")
        assert not (measures and "kdexp.doctor.finding" in names), "what measures does not judge"
        assert name == "kdexp.doctor.inspection" or not top(names) & LIGHTNING
    if part == "search":
        assert not top(names) & (LIGHTNING | {"torch"})
    if part in ("data", "metrics", "teacher", "teacher_cache", "features", "schedules", "contracts", "atomic"):
        forbidden = ("config", "launch", "tracking", "results", "report", "distiller", "fit", "assemble", "experiment")
        assert not any(n.startswith(tuple(f"kdexp.{f}" for f in forbidden)) for n in ours), ours
    if part == "distiller":
        allowed = (
            "kdexp.contracts",
            "kdexp.features",
            "kdexp.teacher",
            "kdexp.teacher.cached_outputs",
            "kdexp.metrics",
            "kdexp.losses",
        )
        assert all(n.startswith(allowed) for n in ours)


@pytest.mark.parametrize(
    "module",
    [*sorted(PROGRAMS), "kdexp.sweeps.jobs", "kdexp.results", "kdexp.report.page"],
)
def test_programs_start_without_torch(module):
    """--help and shell completion import the program's module; a page of results needs no torch at all."""
    code = f"import sys, {module}; sys.exit(any(m in sys.modules for m in ('torch', 'wandb', 'pytorch_lightning')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "setting", ["seeds=1", "loss=kdd", "alpha=2", "teacher.recipe.max_epochs=0", "tracking.wandb=x"]
)
def test_a_wrong_setting_is_found_without_torch(setting):
    code = (
        "import sys\n"
        "from kdexp.config.compose import compose\nfrom kdexp.experiment.check import check\n"
        "try:\n"
        f"    check(compose(['experiment=smoke', '{setting}'], output_dir='x'))\n"
        "except ValueError:\n"
        "    sys.exit(any(m in sys.modules for m in ('torch', 'sklearn', 'timm')))\n"
        "sys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("robustness.resamples=3", "robustness.resamples must be at least 100, got 3"),
        ("robustness.corruptions.severities=[9]", "robustness.corruptions.severities must be of 1 to 5, got 9"),
        (
            "robustness.noise_dose.kinds.uniform_noise=3",
            "robustness.noise_dose.kinds.uniform_noise must be settings, got 3",
        ),
        ("robustness.attacks.samples=0", "robustness.attacks.samples must be null or at least 1, got 0"),
        ("robustness.calibration.bins=0", "robustness.calibration.bins must be at least 1, got 0"),
        ("robustness.features.train_samples=0", "robustness.features.train_samples must be at least 1, got 0"),
        (
            "+robustness.shift.pair=x",
            "robustness.shift: DatasetShift.__init__() got an unexpected keyword argument 'pair'",
        ),
    ],
)
@pytest.mark.parametrize(
    "check",
    [
        "config.check_values(config.compose(['experiment=smoke', *given], output_dir='x'))",
        "next(eval.robustness(config.compose(given, 'eval', run='x')))",
    ],
    ids=["train", "eval"],
)
def test_a_wrong_setting_of_a_robustness_report_is_found_without_torch(check, setting, message):
    code = (
        "import sys\n"
        "from kdexp import config, eval\n"
        f"given = ['robustness=all', {setting!r}]\n"
        "try:\n"
        f"    {check}\n"
        "except ValueError as error:\n"
        "    print(error, [m for m in ('torch', 'numpy', 'sklearn') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == f"{message} []\n"


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
        "import pkgutil, threading, kdexp.sweeps.preload\n"
        "from kdexp.config.identity import own_source\n"
        "names = [m.name for m in pkgutil.walk_packages(kdexp.__path__, 'kdexp.')]\n"
        "print(len(names), [n for n in names if n not in sys.modules])\n"
        "print(own_source.cache_info().currsize, threading.active_count(), 'timm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    left_out = ["kdexp.sweeps.shared_process", "kdexp.sweeps.optuna_study"] if missing else []
    assert done.stdout == f"{len(MODULES) - 1} {left_out}\n1 1 False\n"


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
