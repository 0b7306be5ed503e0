# shellcheck shell=bash disable=SC2154 # lower-case names: of gke.sh, which sources this
# The manifest of a JobSet (https://jobset.sigs.k8s.io). A host is a pod with one process. Exit code
# 2 fails its Job because of the podFailurePolicy, and so the JobSet; after any other failure the
# JobSet starts all hosts again, once all are gone.

# A string of JSON, which is one of YAML, too; what YAML does not take as it is, is escaped.
json() {
  local LC_ALL=C text="$1" number letter # bytes, not letters of whatever the locale's encoding is
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  if [[ "$text" == *[[:cntrl:]]* ]]; then
    for number in {1..31} 127; do
      printf -v letter %b "\\x$(printf %x "$number")"
      text=${text//"$letter"/$(printf '\\u%04x' "$number")}
    done
  fi
  if [[ "$text" == *$'\xc2'[$'\x80'-$'\x9f']* ]]; then # control characters, too
    for number in {128..159}; do
      printf -v letter %b "\\xc2\\x$(printf %x "$number")"
      text=${text//"$letter"/$(printf '\\u%04x' "$number")}
    done
  fi
  text=${text//$'\xe2\x80\xa8'/'\u2028'} # lines and paragraphs end with these
  text=${text//$'\xe2\x80\xa9'/'\u2029'}
  text=${text//$'\xef\xbb\xbf'/'\ufeff'}
  text=${text//$'\xef\xbf\xbe'/'\ufffe'}
  text=${text//$'\xef\xbf\xbf'/'\uffff'}
  printf '"%s"' "$text"
}

is_utf8() {
  local LC_ALL=C
  [[ "$1" =~ ^($utf8)*$ ]]
}

# A letter of UTF-8, by its bytes.
utf8=$'[\x01-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|'
utf8+=$'[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]|'
utf8+=$'\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}'

# The arguments as a list of YAML, $1 spaces from the left.
list() {
  local indent="$1" item
  shift
  for item in "$@"; do printf "%${indent}s- %s\n" "" "$item"; done
}

# The words of the command. Kubernetes would take $(X) for a variable, and $$ for $.
words() {
  local word
  for word in "${command[@]}"; do
    word=${word//\$/\$\$}
    list 14 "$(json "$word")"
  done
}

manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $(json "$name")
YAML
  if [[ -n "$type" ]] && ((hosts > 1)); then
    # A slice of several hosts is a node pool; GKE tells hosts and slices about each other.
    echo "  annotations:"
    echo "    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool"
  fi
  cat <<YAML
spec:
  failurePolicy:
    maxRestarts: $retries
    restartStrategy: BlockingRecreate
    rules:
    - name: mistake
      action: FailJobSet
      onJobFailureReasons:
      - PodFailurePolicy
  replicatedJobs:
  - name: hosts
    replicas: $slices
    template:
      spec:
        parallelism: $hosts
        completions: $hosts
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes:
              containerName: main
              operator: In
              values:
              - 2
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: $grace
YAML
  pod
}

# The part of the manifest that belongs to a pod, of which a host has one.
pod() {
  if [[ -n "$account" ]]; then echo "            serviceAccountName: $(json "$account")"; fi
  if ((slices > 1)); then
    # As Google advises for traffic between slices.
    echo "            hostNetwork: true"
    echo "            dnsPolicy: ClusterFirstWithHostNet"
  fi
  echo "            nodeSelector:"
  if [[ -n "$spot" ]]; then selector+=('cloud.google.com/gke-spot: "true"'); fi
  printf '              %s\n' "${selector[@]}"
  if [[ -n "$spot" ]]; then
    cat <<YAML
            tolerations:
            - key: cloud.google.com/gke-spot
              operator: Equal
              value: "true"
              effect: NoSchedule
YAML
  fi
  cat <<YAML
            containers:
            - name: main
              image: $(json "$image")
              command:
$(words)
              resources:
                limits:
                  $resource: $each
              env:
              - name: DSD_STOPPED
                value: "143"
              - name: DSD_ACCELERATOR
                value: $accelerated
              - name: PYTHONUNBUFFERED
                value: "1"
YAML
  place_of_host
  if [[ -n "$gpu" ]]; then
    # Shared memory for NCCL: containers have 64 MB.
    cat <<YAML
              volumeMounts:
              - name: shared-memory
                mountPath: /dev/shm
            volumes:
            - name: shared-memory
              emptyDir:
                medium: Memory
YAML
  fi
}

# The variables that dsd_jax/distributed/cluster.py reads. GKE tells each TPU host its number; without
# it a host fails.
place_of_host() {
  ((hosts > 1)) || return 0
  if [[ -n "$type" ]]; then
    cat <<YAML
              - name: DSD_CLUSTER
                value: tpu
YAML
  else
    cat <<YAML
              - name: DSD_COORDINATOR
                value: $(json "$name-hosts-0-0.$name:8476")
              - name: DSD_PROCESSES
                value: "$hosts"
              - name: DSD_PROCESS
                valueFrom:
                  fieldRef:
                    fieldPath: metadata.annotations['batch.kubernetes.io/job-completion-index']
YAML
  fi
}
