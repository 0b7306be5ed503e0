# shellcheck shell=bash disable=SC2154 # root, dry_run: of run.sh, which sources this
# Runs a command on GPUs of a Slurm cluster: one process per GPU, resumed after preemption.
#
#   bash launch/run.sh slurm --nodes 2 --gpus 8 -- python -m dsd_jax.train --config=... --workdir=...
#
#   --nodes N         number of nodes (1)
#   --gpus G          GPUs per node, and so processes per node (1)
#   --name NAME       name of the job (dsd_jax)
#   --time LIMIT      time limit, as sbatch takes it (24:00:00)
#   --sbatch OPTION   any other option of sbatch, such as --sbatch --partition=a100; may be repeated
#
# The checkout and the --workdir must be on a file system that all nodes share. Two minutes before
# the limit, and on preemption, the processes get SIGTERM: they save and exit with code 143. The job
# then requeues itself and resumes, as it does after exit code 75 (JAX found no GPU). Slurm itself
# requeues only jobs that it preempted or that lost a node.
# `bash launch/run.sh --dry-run slurm ...` prints the sbatch command instead of running it.

run_slurm() {
  local nodes=1 gpus=1 name=dsd_jax limit=24:00:00 more=() command arguments
  while (($#)) && [[ "$1" != -- ]]; do
    split_option "$@"
    set -- "${arguments[@]}"
    [[ -n "${2:-}" ]] || fail "slurm: $(shown "$1") needs a value."
    case "$1" in
      --nodes) nodes="$(positive slurm "$@")" ;;
      --gpus) gpus="$(positive slurm "$@")" ;;
      --name) name="$(checked slurm "$1" "$2" '[A-Za-z0-9][A-Za-z0-9._-]{0,99}' "$name_in_words")" ;;
      --time) limit="$(checked slurm "$1" "$2" '[0-9][0-9:-]{0,19}|UNLIMITED|INFINITE' "$time_in_words")" ;;
      --sbatch) more+=("$(checked slurm "$1" "$2" '-[[:print:]]+' "an option of sbatch, in ASCII")") ;;
      *) fail "slurm: unknown option '$(shown "$1")'; bash launch/run.sh slurm --help lists them." ;;
    esac
    shift 2
  done
  take_command slurm "$@"
  [[ -n "$dry_run" ]] || command -v sbatch >/dev/null ||
    fail "slurm: sbatch is not on PATH; run this where jobs are submitted from."
  # What sbatch makes of --wrap is run by /bin/sh, dash on Debian and Ubuntu.
  local line
  line="$(quoted srun --kill-on-bad-exit=1 bash "$root/launch/run.sh" here -- "${command[@]}")"
  line+="|| { $again; }"
  execute env DSD_CLUSTER=slurm DSD_ACCELERATOR=cuda DSD_STOPPED=143 sbatch "--job-name=$name" "--nodes=$nodes" \
    "--ntasks-per-node=$gpus" "--gpus-per-node=$gpus" "--time=$limit" --requeue \
    --signal=TERM@120 --open-mode=append "--output=$name-%j.log" --export=ALL \
    ${more[@]+"${more[@]}"} "--wrap=$line"
}

name_in_words="at most 100 of A-Z, a-z, 0-9, dot, _ and -"
time_in_words="a time as sbatch takes it, such as 24:00:00 or 2-12"

# What the job does after a failure: 143 is a run that was stopped, 75 a node whose GPUs do not work,
# which ten turns may meet.
# shellcheck disable=SC2016 # for the shell of the job
again='code=$?; if [ $code -eq 143 ] || { [ $code -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 10 ]; }
then scontrol requeue "$SLURM_JOB_ID"; fi; exit $code'
