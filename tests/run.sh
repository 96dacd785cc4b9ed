#!/usr/bin/env bash
# Installs the package with all that its tests need, and runs them with every Python cell that is there: the first one
# whole; of the second one the contract, the losses, the registry, and one config a family. `--whole` runs all in both.
# Anything else goes to pytest, in both.
set -euo pipefail
cd "$(dirname "$0")/.."

interpreter() { # the first of the given version on PATH that really is one
    local found
    while read -r found; do
        if "$found" -c "import sys; sys.exit(sys.version_info[:2] != (3, ${1#3.}))" 2>/dev/null; then
            echo "$found"
            return
        fi
    done < <(type -aP "python$1" || true)
}

few=(--few)
if [ "${1:-}" = "--whole" ]; then
    few=()
    shift
fi
[ "$#" -eq 0 ] || few=()

ran=0
for version in 3.11 3.12; do
    python=$(interpreter "$version")
    if [ -z "$python" ]; then
        echo "== Python $version is not here: its cell is left out"
        continue
    fi
    venv=".venv/$version"
    echo "== Python $version: $python"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install -q -U pip
    "$venv/bin/python" -m pip install -q -e ".[test]"
    own=()
    [ "$ran" -eq 0 ] || own=("${few[@]}")
    "$venv/bin/python" -m pytest -q -n 2 --dist loadfile "${own[@]}" "$@"
    ran=$((ran + 1))
done
[ "$ran" -gt 0 ] || { echo "no Python 3.11 or 3.12 was found" >&2; exit 1; }
