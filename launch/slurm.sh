# shellcheck shell=bash disable=SC2154 # root, dry_run: of run.sh, which sources this
# A Slurm cluster with GPUs: one process per GPU, requeued and resumed after preemption.
#
#   bash launch/run.sh slurm --nodes 2 --gpus 8 -- python -m dsd_jax.train --config=... --workdir=...
#
#   --nodes N         nodes (1)
#   --gpus G          GPUs of each node, and so processes (1)
#   --name NAME       of the job (dsd_jax)
#   --time LIMIT      as sbatch takes it (24:00:00)
#   --sbatch OPTION   any other option of sbatch, such as --sbatch --partition=a100; may be repeated
#
# The checkout and the --workdir must be on a file system that all nodes share. Two minutes before
# the limit, and on preemption, the processes get SIGTERM: they save and end with 143, upon which the
# job asks Slurm for another turn, which goes on from there. (Slurm itself requeues only what it
# preempted or what lost a node.) `bash launch/run.sh --dry-run slurm ...` prints the command.

run_slurm() {
  local nodes=1 gpus=1 name=dsd_jax limit=24:00:00 more=() command
  while (($#)) && [[ "$1" != -- ]]; do
    [[ -n "${2:-}" ]] || fail "slurm: $1 needs a value."
    case "$1" in
      --nodes) nodes="$2" ;;
      --gpus) gpus="$2" ;;
      --name) name="$2" ;;
      --time) limit="$2" ;;
      --sbatch) more+=("$2") ;;
      *) fail "slurm: unknown option '$1'; bash launch/run.sh slurm --help lists them." ;;
    esac
    shift 2
  done
  take_command slurm "$@"
  [[ -n "$dry_run" ]] || command -v sbatch >/dev/null ||
    fail "slurm: sbatch is not on PATH; run this where jobs are submitted from."
  local line
  line="$(printf '%q ' srun --kill-on-bad-exit=1 bash "$root/launch/run.sh" here -- "${command[@]}")"
  # shellcheck disable=SC2016 # for the shell of the job
  line+='|| { code=$?; [ $code -ne 143 ] || scontrol requeue "$SLURM_JOB_ID"; exit $code; }'
  execute env DSD_CLUSTER=slurm DSD_ACCELERATOR=cuda DSD_STOPPED=143 sbatch "--job-name=$name" "--nodes=$nodes" \
    "--ntasks-per-node=$gpus" "--gpus-per-node=$gpus" "--time=$limit" --requeue \
    --signal=TERM@120 --open-mode=append "--output=$name-%j.log" --export=ALL "${more[@]}" \
    "--wrap=$line"
}
