# shellcheck shell=bash disable=SC2154 # lower-case names: of gke.sh, which sources this
# The manifest of a JobSet (https://jobset.sigs.k8s.io). A host is a pod with one process. Exit code
# 2 fails its Job because of the podFailurePolicy, and so the JobSet; after any other failure the
# JobSet starts all hosts again, once all are gone.

# A string of JSON, which is one of YAML, too.
json() {
  local text="$1"
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  text=${text//$'\r'/\\r}
  text=${text//$'\t'/\\t}
  printf '"%s"' "$text"
}

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
  name: $name
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

# What hosts.py reads. Hosts with TPUs are told by GKE who they are, and fail if they are not.
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
                value: $name-hosts-0-0.$name:8476
              - name: DSD_PROCESSES
                value: "$hosts"
              - name: DSD_PROCESS
                valueFrom:
                  fieldRef:
                    fieldPath: metadata.annotations['batch.kubernetes.io/job-completion-index']
YAML
  fi
}
