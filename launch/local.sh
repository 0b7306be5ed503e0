# shellcheck shell=bash
# A pod simulated on this machine: processes for hosts, each with CPU devices of its own.
#
#   bash launch/run.sh local --procs 2 --devices 4 -- python -m dsd_jax.train --config=... --workdir=...
#
#   --procs P     processes (2)
#   --devices D   simulated CPU devices of each (4)
#
# Lines of output begin with the process's number. SIGTERM and Ctrl-C reach every process; if one
# fails, the others are told to stop. The exit code is that of the first process that failed.

run_local() {
  ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501)) ||
    fail "local: needs bash 5.1 or newer, this is $BASH_VERSION."
  local procs=2 devices=4 command arguments
  while (($#)) && [[ "$1" != -- ]]; do
    split_option "$@"
    set -- "${arguments[@]}"
    case "$1" in
      --procs) procs="$(positive local "$@")" ;;
      --devices) devices="$(positive local "$@")" ;;
      *) fail "local: unknown option '$1'; expected --procs, --devices or --." ;;
    esac
    shift 2
  done
  take_command local "$@"
  local port=$((20000 + RANDOM % 12000)) number # below those that systems hand out
  if [[ -n "$dry_run" ]]; then
    for ((number = 0; number < procs; number++)); do
      execute env "${simulated[@]}" "DSD_COORDINATOR=127.0.0.1:PORT" "DSD_PROCESSES=$procs" \
        "DSD_PROCESS=$number" "JAX_NUM_CPU_DEVICES=$devices" "${command[@]}"
    done
    return
  fi
  enter_environment
  export "${simulated[@]}" DSD_COORDINATOR="127.0.0.1:$port" DSD_PROCESSES="$procs"
  export JAX_NUM_CPU_DEVICES="$devices"
  start_processes
  trap 'signal_all TERM' TERM INT
  wait_for_all
}

simulated=(JAX_PLATFORMS=cpu PYTHONUNBUFFERED=1)

# Starts `procs` copies of `command` in sessions of their own; sets the array `pids`.
start_processes() {
  pids=()
  local number
  for ((number = 0; number < procs; number++)); do
    DSD_PROCESS="$number" "${command[@]}" > >(sed -u "s/^/[$number] /") 2>&1 </dev/null &
    pids+=("$!")
  done
}

signal_all() {
  kill -s "$1" "${pids[@]}" 2>/dev/null || true
}

# Waits until every process has ended; returns the exit code of the first that failed.
wait_for_all() {
  local left=${#pids[@]} ended code failed=0 killer=""
  while ((left)); do
    code=0
    ended=""
    wait -n -p ended "${pids[@]}" || code=$?
    if [[ -z "${ended:-}" ]]; then continue; fi # interrupted by a signal: the trap passed it on
    left=$((left - 1))
    forget "$ended"
    if ((code && !failed)); then
      failed=$code
      signal_all TERM
      (sleep "${DSD_GRACE:-30}" && signal_all KILL) &>/dev/null &
      killer=$!
    fi
  done
  if [[ -n "$killer" ]]; then kill "$killer" 2>/dev/null || true; fi
  return "$failed"
}

forget() {
  local pid rest=()
  for pid in "${pids[@]}"; do
    if [[ "$pid" != "$1" ]]; then rest+=("$pid"); fi
  done
  pids=("${rest[@]}")
}
