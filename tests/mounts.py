"""File systems that a program finds full or not to be written to, for root as well."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_READ_ONLY = """
import os, subprocess, sys
folder, *command = sys.argv[1:]
subprocess.run(["mount", "--bind", folder, folder], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
os.execvp(command[0], command)
"""
_SMALL = """
import os, subprocess, sys
folder, size, *command = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
os.execvp(command[0], command)
"""


def read_only(folder: Path) -> list[str]:
    """What to put before a command for which the folder is to be read-only."""
    if os.geteuid() != 0:
        for place in (*folder.rglob("*"), folder):
            place.chmod(place.stat().st_mode & ~0o222)
        return []
    return _mounted(_READ_ONLY, str(folder))


def small_disk(folder: Path, size: str) -> list[str]:
    """What to put before a command for which the folder is to be an empty disk of a size; nobody else sees it."""
    return _mounted(_SMALL, str(folder), size)


def _mounted(script: str, *arguments: str) -> list[str]:
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("only root may mount, and not everywhere")
    return ["unshare", "-m", sys.executable, "-c", script, *arguments]
