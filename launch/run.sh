#!/usr/bin/env bash
# Sets up an environment and runs the main job on this machine: few-shot learning on the bundled
# model, evaluation and a report. Works from any folder.
#
#   bash launch/run.sh                          configs/emoji.py into runs/emoji
#   bash launch/run.sh --config.seed=1          with a field of the config changed
#   bash launch/run.sh --config=FILE --workdir=DIR
#
# All arguments go to `python -m dsd_jax.train`, whose own --help lists them.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

run_here() {
  local workdir="$root/runs/emoji" previous="" argument
  for argument in "$@"; do
    if [[ "$argument" == --workdir=* ]]; then workdir="${argument#--workdir=}"; fi
    if [[ "$previous" == --workdir ]]; then workdir="$argument"; fi
    previous="$argument"
  done
  use_environment "$root/requirements.txt"
  # Huge pages for large buffers: on Linux CPUs XLA spends a good part of its time on page faults.
  export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
  # Not installed but found: the caller's folder stays the one that relative paths start from.
  export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
  "$python" -m dsd_jax.train --config="$root/configs/emoji.py" --workdir="$root/runs/emoji" "$@"
  if [[ -f "$workdir/report.html" ]]; then echo "Report: $workdir/report.html"; fi
}

# The comment at the top of this file.
show_help() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
  sed -n '/DSD_VENV=DIR/s/^# *//p' "$root/launch/environment.sh"
}

# Where to run. Other places (a TPU slice, several processes) become further cases.
case "${1:-}" in
  -h | --help) show_help ;;
  "" | -*) run_here "$@" ;;
  *) fail "unknown argument '$1': options begin with --; bash launch/run.sh --help shows some." ;;
esac
