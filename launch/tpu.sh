# shellcheck shell=bash disable=SC2154 # root, dry_run: of run.sh, which sources this
# Creates Cloud TPU slices as queued resources of gcloud, and runs commands on them.
#
#   bash launch/run.sh tpu create  --name pod --zone us-central2-b --type v5litepod-16 [--spot]
#   bash launch/run.sh tpu setup   --name pod --zone us-central2-b
#   bash launch/run.sh tpu run     --name pod --zone us-central2-b -- python -m dsd_jax.train \
#       --config=configs/emoji.py --workdir=gs://bucket/run-1
#   bash launch/run.sh tpu babysit --name pod --zone us-central2-b --type v5litepod-16 --spot \
#       -- python -m dsd_jax.train --config=configs/emoji.py --workdir=gs://bucket/run-1
#   bash launch/run.sh tpu logs    --name pod --zone us-central2-b
#   bash launch/run.sh tpu delete  --name pod --zone us-central2-b
#
#   create   requests the slice and waits until it is active
#   setup    copies the committed files to every worker and installs the environment with jax[tpu]
#   run      runs the command on every worker; exits with the command's code
#   babysit  does all three, and does so again after each preemption or failure; a mistake in the
#            command (exit code 2) ends it. The same --workdir resumes the run.
#   logs     prints the first worker's output of the newest run, and follows it
#   delete   deletes the slice
#
#   --name NAME      name of the queued resource and its node (NAME-0, NAME-1 and so on if several)
#   --zone ZONE      zone of the slice
#   --project ID     Google Cloud project (gcloud's default)
#   --type TYPE      accelerator type, such as v5litepod-16 or v6e-64
#   --slices N       number of slices that run the command together (1); TPU v4 and newer
#   --version V      runtime version (the one of the type, such as v2-alpha-tpuv5-lite)
#   --spot           use a Spot slice: cheaper, and may be preempted at any time
#   --retries N      number of restarts by babysit (100)
#   --wait SECONDS   time between checks of a slice that is not active yet (30)
#
# The --workdir must be shared by all workers and outlive them: use gs://bucket/run (setup installs
# gcsfs for it), or a Filestore that is mounted on all workers.
# `bash launch/run.sh --dry-run tpu ...` prints the gcloud commands instead of running them.

run_tpu() {
  local action="${1:-}"
  case "$action" in
    create | setup | run | babysit | logs | delete) shift ;;
    *) fail "tpu: '$(shown "$action")' is no action; expected create, setup, run, babysit, logs or delete." ;;
  esac
  local name="" zone="" project="" type="" slices=1 version="" spot="" retries=100
  local pause=30 command=() state=""
  read_tpu_options "$@"
  [[ -n "$name" ]] || fail "tpu $action: --name is missing."
  [[ -n "$zone" ]] || fail "tpu $action: --zone is missing."
  case "$action" in
    create | babysit) [[ -n "$type" ]] || fail "tpu $action: --type is missing, such as v5litepod-16." ;;
  esac
  case "$action" in
    run | babysit) ((${#command[@]})) || fail "tpu $action: expected -- and a command at the end." ;;
    *) ((${#command[@]} == 0)) || fail "tpu $action takes no command." ;;
  esac
  [[ -n "$dry_run" ]] || command -v gcloud >/dev/null ||
    fail "tpu: gcloud is not on PATH; see https://cloud.google.com/sdk/docs/install."
  "tpu_$action"
}

read_tpu_options() {
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
        take_command tpu "$@"
        return
        ;;
      --name | --zone | --project | --type | --slices | --version | --retries | --wait)
        [[ -n "${2:-}" && "${2:-}" != -* ]] || fail "tpu: $1 needs a value."
        ;;
    esac
    case "$1" in
      --name) name="$(checked tpu "$1" "$2" '[a-z]([a-z0-9-]{0,58}[a-z0-9])?' "$name_in_words")" ;;
      --zone) zone="$(checked tpu "$1" "$2" '[a-z0-9-]{1,40}' "a zone such as us-central2-b")" ;;
      --project) project="$(checked tpu "$1" "$2" '[a-z0-9.:-]{1,100}' "the id of a project")" ;;
      --type) type="$(checked tpu "$1" "$2" '[a-z0-9]{1,20}-[1-9][0-9]{0,5}' "$type_in_words")" ;;
      --slices) slices="$(positive tpu "$@")" ;;
      --version) version="$(checked tpu "$1" "$2" '[a-z0-9.-]{1,60}' "a version of the runtime")" ;;
      --retries) retries="$(positive tpu "$@")" ;;
      --wait) pause="$(checked tpu "$1" "$2" '0|[1-9][0-9]{0,5}' "a number of seconds")" ;;
      *) fail "tpu: unknown option '$(shown "$1")'; bash launch/run.sh tpu --help lists them." ;;
    esac
    shift 2
  done
}

name_in_words="at most 60 of a-z, 0-9 and -, from a letter on"
type_in_words="a type and a number, such as v5litepod-16"

# gcloud compute tpus WORDS..., with the zone and project.
tpus() {
  execute gcloud compute tpus "$@" "--zone=$zone" ${project:+"--project=$project"}
}

tpu_create() {
  local nodes=("--node-id=$name")
  if ((slices > 1)); then nodes=("--node-count=$slices" "--node-prefix=$name"); fi
  tpus queued-resources create "$name" "${nodes[@]}" "--accelerator-type=$type" \
    "--runtime-version=${version:-$(runtime_of "$type")}" ${spot:+--spot}
  wait_until_active
}

# The runtime that Google's documentation names for a type.
runtime_of() {
  case "$1" in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

# Sets `state` to the queued resource's state, such as ACTIVE or SUSPENDED, or to MISSING if gcloud
# says that there is none. Fails, and shows gcloud's reason, if it could not look.
look() {
  local told code=0
  told="$(mktemp)"
  state="$(tpus queued-resources describe "$name" "--format=value(state.state)" 2>"$told")" ||
    code=$?
  if ((code)) && grep -qiE 'NOT_FOUND|not found|does not exist' "$told"; then
    state=MISSING code=0
  fi
  if ((code)); then
    cat "$told" >&2
    check_login "$told"
    echo "run.sh: tpu: gcloud could not look at $name; it says why above." >&2
  fi
  rm -f "$told"
  return "$code"
}

# Ends all where gcloud's complaint in the file $1 is about the login: it will not get better.
check_login() {
  if grep -qiE "$no_login" "$1"; then
    rm -f "$1"
    fail "tpu: gcloud is not logged in, or not allowed to; it says why above."
  fi
}

no_login='gcloud auth|auth(entication)? tokens?|active account|UNAUTHENTICATED|reauth|invalid_grant'
no_login+='|PERMISSION_DENIED|could not find default credentials'

wait_until_active() {
  if [[ -n "$dry_run" ]]; then
    look
    echo "$state"
    return
  fi
  while true; do
    look || return
    case "$state" in
      ACTIVE) return ;;
      CREATING | ACCEPTED | PROVISIONING | WAITING_FOR_RESOURCES | DELETING) ;;
      *)
        echo "run.sh: tpu: $name is $(shown "${state:-in no state}"); it will not become ACTIVE." >&2
        return 1
        ;;
    esac
    echo "$name is $state; looking again in $pause s."
    sleep "$pause"
  done
}

# Runs one line of shell on the workers $1 of the slices $1, a number or `all`.
on_workers() {
  tpus queued-resources ssh "$name" "--node=$1" "--worker=$1" "--command=$2"
}

# The runtimes have Ubuntu 22.04's Python 3.10, which is too old for JAX.
# shellcheck disable=SC2016 # for the workers' shells
get_python='export PATH="$HOME/.local/bin:$PATH"; command -v python3.12 python3.13 python3.11 ||
  { python3 -m pip install --quiet --user uv && python3 -m uv python install 3.12; }'

tpu_setup() {
  local archive="${TMPDIR:-/tmp}/dsd_jax-$name.tgz"
  execute git -C "$root" archive --format=tar.gz "--output=$archive" HEAD
  tpus queued-resources scp "$archive" "$name:dsd_jax.tgz" --node=all --worker=all
  on_workers all "{ $get_python; } && mkdir -p dsd_jax && tar -xzf dsd_jax.tgz -C dsd_jax &&
  bash dsd_jax/launch/run.sh setup --accelerator tpu"
  execute rm -f "$archive"
}

tpu_run() {
  # Quoted here for the workers' shells: arguments with spaces arrive as they are.
  local line
  line="$(quoted "${command[@]}")"
  on_workers all "set -o pipefail; cd dsd_jax && DSD_CLUSTER=tpu DSD_ACCELERATOR=tpu DSD_STOPPED=143 bash launch/run.sh here -- ${line}2>&1 | tee run.log"
}

tpu_logs() {
  on_workers 0 "tail -n 1000 -F dsd_jax/run.log"
}

tpu_delete() {
  tpus queued-resources delete "$name" --force --quiet
}

tpu_babysit() {
  local attempt code
  for ((attempt = 1; attempt <= retries; attempt++)); do
    code=0
    one_attempt || code=$?
    if ((code == 0 || code == 2)) || [[ -n "$dry_run" ]]; then return "$code"; fi
    echo "run.sh: tpu babysit: attempt $attempt of $retries ended with $code." >&2
    if ((attempt < retries)); then sleep "$pause"; fi
  done
  echo "run.sh: tpu babysit: gave up after $retries attempts." >&2
  return "$code"
}

# Brings the slice to ACTIVE from whatever state it is in, then sets it up and runs the command.
one_attempt() {
  local state
  look || return 1
  case "$state" in
    ACTIVE) ;;
    FAILED | SUSPENDED | SUSPENDING)
      tpu_delete || return 1 # a spot slice that was taken away can't be started again
      tpu_create || return 1
      ;;
    MISSING) tpu_create || return 1 ;;
    *)
      if [[ -n "$dry_run" ]]; then
        echo "$state"
        tpu_create
      else
        wait_until_active || return 1
      fi
      ;;
  esac
  tpu_setup || return 1
  tpu_run
}
