#!/usr/bin/env bash
# The whole check: ruff, mypy, pytest (arguments go to pytest: bash scripts/test.sh -m 'not slow').
set -euo pipefail
. "$(dirname "$0")/environment.sh" dev
cd "$root"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# One thread each: the nets of the tests are too small to share a core's work. Half as many workers again as cores: the
# tests that start programs wait for half of their time.
cores=$(getconf _NPROCESSORS_ONLN)
exec env OMP_NUM_THREADS=1 .venv/bin/pytest -n $((cores + (cores + 1) / 2)) --dist worksteal "$@"
