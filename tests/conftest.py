import atexit
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import warm_programs

SCRIPTS = Path(sys.executable).parent

os.environ.setdefault("WANDB_SILENT", "true")
multiprocessing.set_forkserver_preload(["kdexp.sweeps.preload"])  # once for all processes that a test starts
gc.disable()  # what is imported and collected now is no garbage
atexit.register(gc.freeze)  # nor is there a need to search what the end frees
# A shell ignores them for what runs in the background, and so would all programs that are started here.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What starts programs or trains a teacher is slow, as the fixtures of a test say, but where it is marked quick."""
    for item in items:
        if {"command", "store"} & set(item.fixturenames) and not item.get_closest_marker("quick"):
            item.add_marker("slow")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    """From here on there is garbage; what is older stays, and is not searched again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """Where the teachers are kept, so that each is trained once: those of all test processes side by side."""
    folder = tmp_path_factory.getbasetemp()
    store = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "store"
    store.mkdir(exist_ok=True)
    return store


@pytest.fixture(autouse=True)
def no_pixels(request, monkeypatch):
    """Figures are not turned into pixels, but for the tests that are marked with ``pixels``."""
    if not request.node.get_closest_marker("pixels"):
        monkeypatch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg.print_png", warm_programs.blank_png)


@pytest.fixture
def gpu() -> None:
    """A GPU: the test skips without one."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")


@pytest.fixture(params=["cpu", "gpu"])
def accelerator(request) -> str:
    """Each kind of device in turn, as trainer.accelerator names it; a GPU where there is one."""
    if request.param == "gpu":
        request.getfixturevalue("gpu")
    return request.param


@pytest.fixture
def command(tmp_path, store):
    """Run one of kdexp's console scripts in an empty folder, as a user would."""

    def run(*arguments, rc: int | None = 0, cwd=tmp_path, timeout=300, **environment) -> subprocess.CompletedProcess:
        env = warm_programs.environment(**{"KDEXP_STORE_DIR": str(store), "WANDB_MODE": "offline"} | environment)
        program, *rest = map(str, arguments)
        argv = [SCRIPTS / program, *rest]
        if warm_programs.is_warm(env):
            done = warm_programs.run(argv, cwd, env, timeout)
        else:
            done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False)
        assert rc is None or done.returncode == rc, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


_REAL_DATA = {
    "mnist": "MNIST/raw",
    "mnist8": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "pneumonia_mnist": "pneumoniamnist.npz",
    "chase_db1": "CHASE_DB1",
    **dict.fromkeys(("trec", "sst2", "mr", "subj"), "text-sentconv"),
}


@pytest.fixture
def real_data() -> Callable[[str], str]:
    """The folder of the real data sets, asked for by the option of the one that a test needs: it skips without it."""

    def folder(dataset: str) -> str:
        root = os.environ.get("KDEXP_DATA_DIR")
        if not root:
            pytest.skip(f"{dataset}: KDEXP_DATA_DIR is not set")
        if not Path(root, _REAL_DATA[dataset]).exists():
            pytest.skip(f"{dataset}: {_REAL_DATA[dataset]} is not in KDEXP_DATA_DIR")
        return root

    return folder
