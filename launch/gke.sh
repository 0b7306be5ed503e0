# shellcheck shell=bash disable=SC2154 # root, dry_run: of run.sh, which sources this
# Runs a command on TPU slices or GPU nodes of a GKE cluster, as a JobSet.
#
#   bash launch/run.sh gke apply  --name run-1 --image IMAGE --type v5litepod-16 --slices 2 --spot \
#       -- python -m dsd_jax.train --config=configs/emoji.py --workdir=gs://bucket/run-1
#   bash launch/run.sh gke apply  --name run-1 --image IMAGE --gpu nvidia-h100-80gb --gpus 8 \
#       --nodes 2 -- python -m dsd_jax.train --config=configs/emoji.py --workdir=gs://bucket/run-1
#   bash launch/run.sh gke logs   --name run-1
#   bash launch/run.sh gke delete --name run-1
#
#   apply    starts the command on every host. If a host fails or is preempted, all are started
#            again, and the same --workdir resumes the run; a mistake in the command (exit code 2)
#            ends it. To use a name for another command, delete its run first.
#   logs     prints the first host's output, and follows it
#   delete   stops the run, which saves, and removes it from the cluster
#
#   --name NAME        name of the JobSet; keep it for as long as the run goes on
#   --image IMAGE      container image built from launch/Dockerfile, which says how
#   --type TYPE        TPU slice: v4-*, v5litepod-*, v5p-* or v6e-*, such as v5litepod-16
#   --topology AxB     topology of the slice (v4, v5p: AxBxC), if not the usual one of its type
#   --slices N         number of slices that run the command together (1)
#   --gpu TYPE         GPU type, as in the label cloud.google.com/gke-accelerator
#   --gpus G           GPUs per node (1), all used by one process
#   --nodes N          number of nodes (1)
#   --spot             use Spot VMs, which leave about 15 seconds to save when preempted
#   --retries N        number of restarts (100)
#   --grace SECONDS    time to save between SIGTERM and the end of a host (300)
#   --account NAME     Kubernetes service account, such as one that may write to the bucket
#
# The run goes to kubectl's current context and namespace (set by gcloud container clusters
# get-credentials). The cluster needs JobSet 0.8 or newer
# (https://jobset.sigs.k8s.io/docs/installation).
# `bash launch/run.sh --dry-run gke ...` prints what would be applied instead of applying it.
# On clusters made with xpk, this command does the same for TPUs; quote COMMAND for the shell:
#
#   xpk workload create --cluster C --workload run-1 --docker-image IMAGE --tpu-type v5litepod-16 \
#       --num-slices 2 --max-restarts 100 --restart-on-exit-codes 1 --command "..."

# shellcheck source=launch/jobset.sh
source "$root/launch/jobset.sh"

run_gke() {
  local action="${1:-}"
  case "$action" in
    apply | logs | delete) shift ;;
    *) fail "gke: '$(shown "$action")' is no action; expected apply, logs or delete." ;;
  esac
  local name="" image="" type="" topology="" slices=1 gpu="" gpus=1 nodes=1 spot="" retries=100
  local grace=300 account="" command=()
  read_gke_options "$@"
  # Names of pods, which have the numbers of slice and host and more behind it, end at 63.
  name="$(checked "gke $action" --name "$name" '[a-z]([a-z0-9-]{0,38}[a-z0-9])?' \
    "at most 40 of a-z, 0-9 and -, from a letter on")"
  if [[ "$action" == apply ]]; then
    check_apply
  else
    ((${#command[@]} == 0)) || fail "gke $action takes no command."
  fi
  [[ -n "$dry_run" ]] || command -v kubectl >/dev/null ||
    fail "gke: kubectl is not on PATH; see https://kubernetes.io/docs/tasks/tools."
  "gke_$action"
}

read_gke_options() {
  local arguments
  while (($#)); do
    split_option "$@"
    set -- "${arguments[@]}"
    case "$1" in
      --spot)
        spot=yes
        shift
        continue
        ;;
      --)
        take_command gke "$@"
        return
        ;;
    esac
    [[ -n "${2:-}" && "${2:-}" != -* ]] || fail "gke: $(shown "$1") needs a value."
    case "$1" in
      --name) name="$2" ;;
      --image) image="$(checked gke "$1" "$2" '[A-Za-z0-9][A-Za-z0-9._/:@-]{0,499}' "an image's address")" ;;
      --type) type="$2" ;;
      --topology) topology="$2" ;;
      --slices) slices="$(positive gke "$@")" ;;
      --gpu) gpu="$(checked gke "$1" "$2" '[a-z0-9][a-z0-9-]{0,62}' "a GPU such as nvidia-h100-80gb")" ;;
      --gpus) gpus="$(positive gke "$@")" ;;
      --nodes) nodes="$(positive gke "$@")" ;;
      --retries) retries="$(positive gke "$@")" ;;
      --grace) grace="$(positive gke "$@")" ;;
      --account) account="$(checked gke "$1" "$2" '[a-z0-9][a-z0-9.-]{0,252}' "a name of a-z, 0-9, - and .")" ;;
      *) fail "gke: unknown option '$(shown "$1")'; bash launch/run.sh gke --help lists them." ;;
    esac
    shift 2
  done
}

check_apply() {
  [[ -n "$image" ]] || fail "gke apply: --image is missing; launch/Dockerfile says how to make one."
  [[ -n "$type" || -n "$gpu" ]] ||
    fail "gke apply: expected --type such as v5litepod-16, or --gpu such as nvidia-h100-80gb."
  [[ -z "$type" || -z "$gpu" ]] || fail "gke apply: expected --type or --gpu, not both."
  ((${#command[@]})) || fail "gke apply: expected -- and a command at the end."
  local word
  for word in "${command[@]}"; do
    is_utf8 "$word" ||
      fail "gke apply: '$(shown "$word")' is no text in UTF-8, which a manifest has to be."
  done
}

gke_apply() {
  local selector=() resource each hosts accelerated
  if [[ -n "$type" ]]; then describe_slice; else describe_gpus; fi
  if [[ -z "$dry_run" ]]; then
    # Made before it is sent, so that half of one never is.
    local made
    made="$(manifest)"
    kubectl apply --filename=- <<<"$made"
    return
  fi
  echo "kubectl apply --filename=- <<'YAML'"
  manifest
  echo YAML
}

gke_logs() {
  local first="jobset.sigs.k8s.io/jobset-name=$name,jobset.sigs.k8s.io/job-index=0"
  execute kubectl logs --follow --tail=1000 \
    "--selector=$first,batch.kubernetes.io/job-completion-index=0"
}

gke_delete() {
  execute kubectl delete jobset "$name"
}

describe_gpus() {
  resource=nvidia.com/gpu each="$gpus" hosts="$nodes" accelerated=cuda
  selector=("cloud.google.com/gke-accelerator: $(json "$gpu")")
}

# Chips and hosts of a slice: https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
describe_slice() {
  local accelerator axes chips="${type#*-}"
  [[ "$chips" =~ ^[1-9][0-9]{0,5}$ ]] || chips=0
  case "$type" in
    v4-*) accelerator=tpu-v4-podslice axes=3 chips=$((chips / 2)) ;; # these count cores
    v5p-*) accelerator=tpu-v5p-slice axes=3 chips=$((chips / 2)) ;;
    v5litepod-*) accelerator=tpu-v5-lite-podslice axes=2 ;;
    v6e-*) accelerator=tpu-v6e-slice axes=2 ;;
    *) fail "gke: --type is '$(shown "$type")'; expected v4-*, v5litepod-*, v5p-* or v6e-*." ;;
  esac
  topology="${topology:-$(usual_topology "$axes" "$chips")}"
  if [[ ! "$topology" =~ ^[1-9][0-9]{0,3}(x[1-9][0-9]{0,3}){1,2}$ ]] ||
    ((${topology//x/ * } != chips)); then
    fail "gke: --type $(shown "$type") has $chips chips, which --topology '$(shown "$topology")'" \
      "does not place."
  fi
  resource=google.com/tpu each=4 accelerated=tpu
  if ((axes == 2 && chips <= 8)); then each="$chips"; fi # all on one host
  hosts=$((chips / each))
  ((hosts > 1 || slices == 1)) ||
    fail "gke: --slices $slices needs slices of several hosts each; $type has one."
  selector=("cloud.google.com/gke-tpu-accelerator: $accelerator"
    "cloud.google.com/gke-tpu-topology: $(json "$topology")")
}

# 4x4 for 2 axes and 16 chips: the last of the shortest axes is doubled until the chips suffice.
usual_topology() {
  local x=1 y=1 z=1
  if (($1 == 3)); then x=2 y=2; fi
  while ((x * y * z < $2)); do
    if (($1 == 3 && z <= x && z <= y)); then
      z=$((z * 2))
    elif ((y <= x)); then
      y=$((y * 2))
    else
      x=$((x * 2))
    fi
  done
  if (($1 == 3)); then echo "${x}x${y}x$z"; else echo "${x}x$y"; fi
}
