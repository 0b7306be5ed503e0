# shellcheck shell=bash
# Simulates a pod on this machine: each process stands for a host and has its own CPU devices.
#
#   bash launch/run.sh local --procs 2 --devices 4 -- python -m dsd_jax.train --config=... --workdir=...
#
#   --procs P     number of processes (2)
#   --devices D   simulated CPU devices per process (4)
#
# Each line of output begins with the number of its process. SIGTERM and Ctrl-C are passed on to
# every process; if one fails, the others are stopped. The exit code is that of the first process
# that failed, and the last line says which process that was, and why.

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
  notes="$(mktemp -d)"
  trap 'rm -rf "$notes" || true' EXIT # what a process leaves behind may still be writing
  start_processes
  trap 'signal_all TERM' TERM INT
  local code=0
  wait_for_all || code=$?
  wait_for_notes
  if ((code)); then tell_failure "$code"; fi
  return "$code"
}

simulated=(JAX_PLATFORMS=cpu PYTHONUNBUFFERED=1)
numbers=() # of processes, by process id
first=""   # number of the first process that failed
notes=""   # folder with the last line of each process

# Starts `procs` copies of `command`; sets the array `pids`, and `numbers` of processes by them.
start_processes() {
  pids=()
  local number
  for ((number = 0; number < procs; number++)); do
    DSD_PROCESS="$number" "${command[@]}" > >(label "$number") 2>&1 </dev/null &
    pids+=("$!")
    numbers[$!]="$number"
  done
}

# Prints what it reads with the process's number before each line, and notes the last one.
label() {
  local line="" last=""
  while IFS= read -r line || [[ -n "$line" ]]; do
    printf '[%s] %s\n' "$1" "$line"
    if [[ -n "$line" ]]; then last="$line"; fi
  done
  { printf '%s' "${last##*$'\r'}" >"$notes/$1.part" && mv "$notes/$1.part" "$notes/$1"; } 2>/dev/null
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
      first="${numbers[$ended]}"
      # The others learn of it from each other and report it; SIGTERM is for those that do not.
      (sleep 5 && signal_all TERM && sleep "${DSD_GRACE:-30}" && signal_all KILL) &>/dev/null &
      killer=$!
    fi
  done
  if [[ -n "$killer" ]]; then kill "$killer" 2>/dev/null || true; fi
  return "$failed"
}

# Waits until all have been heard to their end, but not for what a process left behind.
wait_for_notes() {
  local number tries=250
  for number in "${numbers[@]}"; do
    while [[ ! -f "$notes/$number" ]] && ((tries-- > 0)); do sleep 0.02; done
  done
}

# Says last who failed first and what it said.
tell_failure() {
  local said="" how="failed with exit code $1"
  if (($1 > 128)); then how="was ended by SIG$(kill -l "$1")"; fi
  if [[ -s "$notes/$first" ]]; then said="; its last line: $(<"$notes/$first")"; fi
  echo "$(basename "$0"): process $first $how$said" >&2
}

forget() {
  local pid rest=()
  for pid in "${pids[@]}"; do
    if [[ "$pid" != "$1" ]]; then rest+=("$pid"); fi
  done
  pids=("${rest[@]}")
}
