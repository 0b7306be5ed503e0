#!/usr/bin/env bash
# Sets up an environment and runs the checks: lint, format, tests. Works from any folder.
#
#   bash launch/test.sh                          everything
#   bash launch/test.sh tests/report/test_report_files.py     arguments go to pytest
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

use_environment "$root/requirements.txt" "$root/tests/requirements.txt" "$root/docs/requirements.txt"
# Beside the environment's packages: JAX complains about a TPU's compiler where there is no TPU.
install_beside "$root/dsd_jax/planning/requirements.txt" planning
cd "$root"
bash "$root/launch/lint.sh"
exec "$python" -m pytest "$@"
