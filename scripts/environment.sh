# Makes .venv beside this folder's parent with kdexp in it, or reuses it. Source it: `. scripts/environment.sh [EXTRA]`.
# shellcheck shell=bash
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
extra="${1:-}"
wanted="$(cat "$root/pyproject.toml"; echo "$extra")"
if [ ! -x "$root/.venv/bin/python" ]; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: kdexp needs Python 3.11 or later, got $("$python" --version 2>&1); name another with PYTHON=..." >&2
    exit 2
  }
  "$python" -m venv "$root/.venv"
fi
# One stamp a set of extras: pip takes seconds only to find that there is nothing to do.
stamp="$root/.venv/.installed${extra:+-$extra}"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "installing kdexp into .venv (PyTorch is large: a few minutes the first time)"
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$root${extra:+[$extra]}"
  echo "$wanted" > "$stamp"
fi
