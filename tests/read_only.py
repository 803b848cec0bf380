"""A folder that cannot be written to, for root as well."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_MOUNTED = """
import os, subprocess, sys
folder, *command = sys.argv[1:]
subprocess.run(["mount", "--bind", folder, folder], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
os.execvp(command[0], command)
"""


def read_only(folder: Path) -> list[str]:
    """What to put before a command for which the folder is to be read-only."""
    if os.geteuid() != 0:
        for place in (*folder.rglob("*"), folder):
            place.chmod(place.stat().st_mode & ~0o222)
        return []
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("root may write everywhere, and may not mount here")
    return ["unshare", "-m", sys.executable, "-c", _MOUNTED, str(folder)]
