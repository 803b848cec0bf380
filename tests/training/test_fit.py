import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from kdexp.training.checkpoints import AtomicCheckpointIO, newest_good


def save(folder: Path, name: str, value: float) -> Path:
    path = folder / name
    AtomicCheckpointIO().save_checkpoint({"weight": torch.full((1000,), value)}, path)
    return path


def test_a_checkpoint_is_one_file_of_plain_weights(tmp_path):
    path = save(tmp_path, "last.ckpt", 1.0)
    assert torch.equal(torch.load(path, weights_only=True)["weight"], torch.ones(1000))
    assert newest_good(tmp_path) == path
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_there_may_be_no_checkpoint(tmp_path):
    assert newest_good(tmp_path) is None


@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "empty"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(tmp_path, damage):
    best, last = save(tmp_path, "best.ckpt", 1.0), save(tmp_path, "last.ckpt", 2.0)
    content = bytearray(last.read_bytes())
    if damage == "truncated":
        last.write_bytes(content[:-100])
    elif damage == "flipped bit":
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
    else:
        last.write_bytes(b"")
    assert newest_good(tmp_path) == best
    assert (tmp_path / "last.ckpt.corrupt").exists()


def test_a_disk_that_is_full_leaves_the_old_checkpoint(tmp_path):
    path = save(tmp_path, "last.ckpt", 1.0)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises((OSError, RuntimeError)):
            save(tmp_path, "last.ckpt", 2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert newest_good(tmp_path) == path


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_loadable_checkpoint(tmp_path):
    code = """
        import os, signal, sys, time, torch
        from pathlib import Path
        from kdexp.training.checkpoints import AtomicCheckpointIO, newest_good

        last = Path(sys.argv[1]) / "last.ckpt"
        for attempt in range(5):
            if not (process := os.fork()):
                for value in range(10**6):
                    AtomicCheckpointIO().save_checkpoint({"weight": torch.full((200_000,), float(value))}, last)
            time.sleep(0.3 + 0.037 * attempt)
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            assert newest_good(last.parent) == last
            assert torch.load(last, weights_only=True)["weight"].unique().numel() == 1
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=True)
