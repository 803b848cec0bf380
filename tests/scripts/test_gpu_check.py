"""scripts/gpu_check.py runs whole where there is no GPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_runs_whole_on_a_cpu(tmp_path):
    out = tmp_path / "gpu_check.json"
    command = [sys.executable, ROOT / "scripts" / "gpu_check.py", "--scale", "smallest", "--out", out]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert not found["errors"]
    assert not found["tests"]["failed"]
    assert found["tests"]["skipped"]
    assert set(found["tests"]["skipped"].values()) == {"needs a GPU"}
    assert [re.sub(r" \(.*\)|, .*", "", ratio["what"]) for ratio in found["ratios"]] == [
        "cnn -> cnn_small", "cnn -> cnn_small", "cnn -> cnn_small", "a batch of the loader", "2 fused students",
        "2 fused students", "cnn -> cnn_small",
    ]  # fmt: skip
    for ratio, row in zip(found["ratios"], found["rows"], strict=True):
        assert ratio["kdexp"] > 0
        assert ratio["bare"] > 0
        assert 0 < ratio["lowest"] <= ratio["ratio"] <= ratio["highest"]
        assert row.startswith(f"| {ratio['what']} | ")
        assert row in done.stdout
