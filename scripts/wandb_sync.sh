#!/usr/bin/env bash
# Send the offline W&B runs that lie below some folders (outputs and multirun, when none is named) to the server:
#
#     bash scripts/wandb_sync.sh multirun/digits_alpha-3fa9c1
#     bash scripts/wandb_sync.sh --dry-run        # says what would be sent; other options go to `wandb sync` too
#
# What was sent before is not sent again. Needs `wandb login`, once.
set -euo pipefail
options=() folders=()
for word in "$@"; do
  case "$word" in
    -*) options+=("$word") ;;
    *) folders+=("$word") ;;
  esac
done
if [ "${#folders[@]}" = 0 ]; then
  for folder in outputs multirun; do
    if [ -d "$folder" ]; then folders+=("$folder"); fi
  done
fi
runs=()
while IFS= read -r -d '' run; do runs+=("$run"); done < <(
  find ${folders[@]+"${folders[@]}"} -type d -name 'offline-run-*' -path '*/wandb/*' -prune -print0
)
if [ "${#runs[@]}" = 0 ]; then
  echo "error: no offline W&B run below ${folders[*]:-outputs or multirun}" >&2
  exit 2
fi
exec wandb sync --yes ${options[@]+"${options[@]}"} "${runs[@]}"
