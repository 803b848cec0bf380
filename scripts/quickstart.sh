#!/usr/bin/env bash
# From nothing to a distilled student on real data: makes .venv, installs kdexp, runs experiment=quickstart.
# More settings may follow: bash scripts/quickstart.sh trainer.max_epochs=10
set -euo pipefail
. "$(dirname "$0")/environment.sh" ""  # named, or it would take our own arguments for an extra
cd "$root"
exec .venv/bin/kdexp-train experiment=quickstart "$@"
