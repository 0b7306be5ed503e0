#!/usr/bin/env bash
# Checks style, formatting, the direction of imports, types and docstrings; launch/test.sh calls it.
#
#   bash launch/lint.sh          checks
#   bash launch/lint.sh --fix    mends what can be mended, then checks
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

use_environment "$root/requirements.txt" "$root/tests/requirements.txt"
cd "$root"
if [[ "${1:-}" == --fix ]]; then
  "$python" -m ruff check --fix --exit-zero --quiet .
  "$python" -m ruff format --quiet .
fi
"$python" -m ruff check .
"$python" -m ruff format --check .
# By its function: import-linter has a command of its own, but no `python -m`.
"$python" -c 'import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())'
"$python" -m basedpyright --level error --pythonpath "$python"
