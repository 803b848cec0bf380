#!/usr/bin/env bash
# The whole check: ruff, mypy, pytest (arguments go to pytest: bash scripts/test.sh -m 'not slow').
set -euo pipefail
. "$(dirname "$0")/environment.sh" dev
cd "$root"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# As many workers as cores, one thread each: the nets of the tests are too small to share a core's work.
exec env OMP_NUM_THREADS=1 .venv/bin/pytest -n auto --dist worksteal "$@"
