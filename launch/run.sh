#!/usr/bin/env bash
# Sets up an environment and runs the main job on this machine: few-shot learning on the bundled
# model, evaluation and a report. Works from any folder.
#
#   bash launch/run.sh                          configs/emoji.py into runs/emoji
#   bash launch/run.sh --config.seed=1          with a field of the config changed
#   bash launch/run.sh --config=FILE --workdir=DIR
#
# All arguments go to `python -m dsd_jax.train`, whose own --help lists them. The first argument may
# instead name another task; local, tpu, gke and slurm have their own --help. `--dry-run` before all
# other arguments prints the commands instead of running them.
#
#   bash launch/run.sh setup [--accelerator cuda|tpu]       only sets up the environment
#   bash launch/run.sh here -- COMMAND...                   runs a command in that environment
#   bash launch/run.sh local --procs 2 --devices 4 -- COMMAND...    a pod simulated on this machine
#   bash launch/run.sh tpu create|setup|run|babysit|logs|delete ...  Cloud TPU slices
#   bash launch/run.sh gke apply|logs|delete ...                     TPUs or GPUs of a GKE cluster
#   bash launch/run.sh slurm --nodes 2 --gpus 8 -- COMMAND...        GPUs of a Slurm cluster
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

dry_run=""
if [[ "${1:-}" == --dry-run ]]; then
  dry_run=yes
  shift
fi

# The comment at the top of the script $1, from its second line.
show_help() {
  sed -n '1d;/^#/!q;s/^# \{0,1\}//;p' "$1"
}

# The words as any POSIX shell reads them back, whatever the locale; bash's %q writes $'...', which
# dash does not know.
quoted() {
  local LC_ALL=C word rest quote="'"
  for word in "$@"; do
    if [[ "$word" =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
      printf '%s ' "$word"
      continue
    fi
    rest="$word" word=""
    while [[ "$rest" == *"$quote"* ]]; do
      word+="${rest%%"$quote"*}'\\''"
      rest="${rest#*"$quote"}"
    done
    printf "'%s' " "$word$rest"
  done
}

# Runs a command, or prints it so that a shell would take it.
execute() {
  if [[ -n "$dry_run" ]]; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

# Sets the array `arguments` to the arguments, of which the first, if it is --option=value, is split.
split_option() {
  # shellcheck disable=SC2034  # for the function that calls this one
  arguments=("$@")
  if [[ "$1" == --?*=* ]]; then arguments=("${1%%=*}" "${1#*=}" "${@:2}"); fi
}

# Sets the array `command` to what follows `--` in the arguments of the place $1.
take_command() {
  local place="$1"
  shift
  [[ "${1:-}" == -- ]] || fail "$place: unknown option '${1:-}'; expected -- and a command."
  shift
  (($#)) || fail "$place: nothing after --; expected a command such as python -m dsd_jax.train ..."
  # shellcheck disable=SC2034  # for the script of the place
  command=("$@")
}

# The number that follows option $2 of place $1. Its digits are few enough for shell arithmetic.
positive() {
  [[ "${3:-}" =~ ^[1-9][0-9]{0,5}$ ]] ||
    fail "$1: $2 is '$(shown "${3:-}")'; expected a number from 1 to 999999."
  echo "$3"
}

# The value $3 of option $2 of place $1, which matches the pattern $4, in words $5.
checked() {
  local LC_ALL=C
  [[ "$3" =~ ^($4)$ ]] || fail "$1: $2 is '$(shown "$3")'; expected $5."
  echo "$3"
}

# A value for a message: one line, without what would move a terminal's cursor.
shown() {
  local LC_ALL=C text="${1//[[:cntrl:]]/?}"
  if ((${#text} > 80)); then text="${text:0:77}..."; fi
  printf '%s' "$text"
}

# Makes the environment and puts it first on PATH, so that `python` is its Python.
enter_environment() {
  use_environment "$root/requirements.txt"
  if [[ -n "${DSD_ACCELERATOR:-}" ]]; then install_accelerator "$DSD_ACCELERATOR"; fi
  PATH="$(dirname "$python"):$PATH"
  # Huge pages for large buffers: on Linux CPUs XLA spends a good part of its time on page faults.
  export PATH GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
  # This checkout, whatever is installed; relative paths start from the caller's folder.
  export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
}

run_main_job() {
  local workdir="$root/runs/emoji" previous="" argument
  for argument in "$@"; do
    if [[ "$argument" == --workdir=* ]]; then workdir="${argument#--workdir=}"; fi
    if [[ "$previous" == --workdir ]]; then workdir="$argument"; fi
    previous="$argument"
  done
  local job=(-m dsd_jax.train --config="$root/configs/emoji.py" --workdir="$root/runs/emoji" "$@")
  if [[ -n "$dry_run" ]]; then
    execute python "${job[@]}"
    return
  fi
  enter_environment
  "$python" "${job[@]}"
  if [[ -f "$workdir/report.html" ]]; then echo "Report: $workdir/report.html"; fi
}

run_setup() {
  local arguments=("$@")
  if (($#)); then
    split_option "$@"
    set -- "${arguments[@]}"
  fi
  case "${1:-}" in
    "") ;;
    --accelerator) export DSD_ACCELERATOR="${2:-}" ;;
    *) fail "setup: unknown option '$1'; expected --accelerator cuda or --accelerator tpu." ;;
  esac
  if [[ -n "$dry_run" ]]; then
    local venv="${DSD_VENV:-$root/.venv}" wanted=(-r "$root/requirements.txt") packages
    if [[ -n "${DSD_ACCELERATOR:-}" ]]; then
      take_packages "$DSD_ACCELERATOR"
      wanted+=("${packages[@]}")
    fi
    execute python -m venv "$venv"
    execute "$venv/bin/python" -m pip install "${wanted[@]}"
    return
  fi
  enter_environment
  echo "Ready: $python"
  echo "Commands: $(dirname "$python")/dsd-jax --help"
}

run_here() {
  local command
  take_command here "$@"
  if [[ -n "$dry_run" ]]; then
    execute "${command[@]}"
    return
  fi
  enter_environment
  exec "${command[@]}" # in place of the shell: SIGTERM then goes to the command
}

place="${1:-}"
case "$place" in
  -h | --help)
    show_help "${BASH_SOURCE[0]}"
    sed -n '/DSD_VENV=DIR/s/^# *//p' "$root/launch/environment.sh"
    ;;
  "" | -*) run_main_job "$@" ;;
  setup | here)
    shift
    if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
      show_help "${BASH_SOURCE[0]}"
      exit
    fi
    "run_$place" "$@"
    ;;
  local | tpu | gke | slurm)
    shift
    if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
      show_help "$root/launch/$place.sh"
      exit
    fi
    # shellcheck source=/dev/null
    source "$root/launch/$place.sh"
    "run_$place" "$@"
    ;;
  *)
    fail "unknown argument '$place': options begin with --, places are here, local, tpu, gke and slurm;" \
      "bash launch/run.sh --help shows some."
    ;;
esac
