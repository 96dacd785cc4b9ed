#!/usr/bin/env bash
# Builds the site into build/site; a warning, a broken link or anchor is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
NO_MKDOCS_2_WARNING=1 PYTHONPATH="$PWD" exec "${PYTHON:-python}" -m mkdocs build --strict "$@"
