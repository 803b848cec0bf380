"""kdexp's programs for tests: forked from a process that has imported PyTorch and kdexp, which takes seconds.

Each is a process of its own, with its own folder, environment, output, signals and exit code. What is not
tested this way is the start itself: test_imports.py sees to that.
"""

import atexit
import gc
import json
import multiprocessing.util
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

_WIDTH = 16  # of a number that the server writes


def environment(**more: str) -> dict[str, str]:
    """The variables of a program: those of this process without what tests and users set, one thread, and more."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "WANDB", "KDEXP"))}
    return own | {"OMP_NUM_THREADS": "1"} | more


def is_warm(env: Mapping[str, str]) -> bool:
    """Whether a program with these variables can be a fork: not where its start imports something of a test's."""
    return not any(Path(folder, "sitecustomize.py").exists() for folder in _own_folders(env))


def _own_folders(env: Mapping[str, str]) -> list[str]:
    return [folder for folder in env.get("PYTHONPATH", "").split(os.pathsep) if folder]


class Program:
    """A program that was started; as far as tests need it, a `subprocess.Popen`."""

    def __init__(
        self, argv: Sequence[object], cwd: object, env: Mapping[str, str], *, own_session: bool = False
    ) -> None:
        self.argv = [str(word) for word in argv]
        self.returncode: int | None = None
        self._outputs = [os.memfd_create(name) for name in ("stdout", "stderr")]
        self._status, status = os.pipe()
        request = {"argv": self.argv, "cwd": str(cwd), "env": dict(env), "own_session": own_session}
        socket.send_fds(_server(), [json.dumps(request).encode()], [*self._outputs, status])
        os.close(status)
        self.pid = int(os.read(self._status, _WIDTH))

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, when it has ended."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.argv, timeout)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(os.read(self._status, _WIDTH))
            os.close(self._status)
        return self.returncode

    def written(self, stream: int) -> str:
        """What it has written: 0 to stdout, 1 to stderr."""
        fd = self._outputs[stream]
        return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it has written to stdout and then to stderr, when it has ended."""
        self.wait(timeout)
        return self.written(0) + self.written(1), None

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def __del__(self) -> None:
        for fd in self._outputs:
            os.close(fd)


def run(argv: Sequence[object], cwd: object, env: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess:
    """Run a program to its end.

    Raises:
        subprocess.TimeoutExpired: it ran longer, and was killed.
    """
    program = Program(argv, cwd, env, own_session=True)
    try:
        program.wait(timeout)
    except BaseException:
        os.killpg(program.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(program.argv, program.returncode, program.written(0), program.written(1))


@cache
def _server() -> socket.socket:
    """The server of this test process; it ends when its end of the socket is closed."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, __file__, str(there.fileno())]
    process = subprocess.Popen(command, env=environment(), pass_fds=[there.fileno()])
    there.close()

    def end() -> None:
        here.close()
        process.wait()

    atexit.register(end)
    return here


def _serve(requests: socket.socket) -> dict | None:
    """Fork for each request, and say how each program ended; in a fork: its request."""
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    while True:
        ready = select.select([requests, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 1024)
            while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                os.write(running[ended[0]], b"%*d" % (_WIDTH, os.waitstatus_to_exitcode(ended[1])))
                os.close(running.pop(ended[0]))
        if requests in ready:
            content, fds, _, _ = socket.recv_fds(requests, 1 << 20, 3)
            if not content:  # the test process has ended
                return None
            *outputs, status = fds
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for fd in (requests.detach(), woken, wakes, status, *running.values()):
                    os.close(fd)
                for number, fd in enumerate(outputs, 1):
                    os.dup2(fd, number)
                    os.close(fd)
                return json.loads(content)
            for fd in outputs:
                os.close(fd)
            running[pid] = status
            os.write(status, b"%*d" % (_WIDTH, pid))


def _become(request: dict) -> None:
    """Be the program of a request."""
    if request["own_session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None
    from wandb.sdk.data_types._private import MEDIA_TMP  # here: tests themselves do without W&B

    # W&B makes this folder when it is imported; the end of a process removes its own, and not everybody's.
    MEDIA_TMP._finalizer.detach()
    MEDIA_TMP.__init__("wandb-media")
    multiprocessing.util.spawnv_passfds = partial(_fork_server_of_jobs, multiprocessing.util.spawnv_passfds)
    sys.argv = request["argv"]
    sys.path[:0] = [str(Path(sys.argv[0]).parent), *_own_folders(request["env"])]
    code: object = None
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    if not (code is None or isinstance(code, int)):
        sys.exit(code)
    _end(code or 0)


def _end(code: int) -> None:
    """End as an interpreter does, but for taking apart each module that was imported before the fork."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _fork_server_of_jobs(start: Callable[..., int], path: bytes, command: Sequence, fds: Sequence[int]) -> int:
    """Start a process of multiprocessing's: a sweep's server of jobs by a fork, since this has its imports already."""
    if "multiprocessing.forkserver" not in command[-1]:
        return start(path, command, fds)
    if pid := os.fork():
        return pid
    try:
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        kept = sorted({0, 1, 2, *fds})
        for one, after in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(one + 1, after)
        exec(command[-1], {})
    finally:
        os._exit(0)


def blank_png(canvas: object, file: Path | BinaryIO) -> None:
    """In the place of matplotlib's `FigureCanvasAgg.print_png`: no picture, in no time.

    Each of a test's hundreds of runs draws three figures. What kdexp puts in them is made all the same; to turn it into
    pixels is matplotlib's work, and takes longer than the training.
    """
    content = b"\x89PNG\r\n\x1a\n"
    _ = file.write_bytes(content) if isinstance(file, Path) else file.write(content)


if __name__ == "__main__":
    sys.path.pop(0)
    for name in ("kdexp.sweeps.preload", "kdexp.cli.commands"):
        import_module(name)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg.print_png = blank_png
    import_module("kdexp.config.compose").compose(["experiment=smoke"], output_dir="")  # conf/ is read and parsed
    gc.freeze()
    if (request := _serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        _become(request)
