#!/usr/bin/env bash
# Whether kdexp works on this machine's GPUs, and how fast: the tests marked gpu, then ratios against a bare loop; at most
# eight minutes once installed. Without a GPU: bash scripts/gpu_check.sh --scale cpu
set -euo pipefail
. "$(dirname "$0")/environment.sh" dev
cd "$root"
exec .venv/bin/python scripts/gpu_check.py "$@"
