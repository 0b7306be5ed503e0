"""`launch/run.sh gke`: the manifest is read back, by a kubectl that only writes down its calls."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORDS = ["python", "-m", "dsd_jax.train", "--workdir=gs://b/run-1"]
ODD = [
    "two  words",
    'it\'s "quoted"',
    "$HOME $(JOB) $$",
    "back\\slash \\n",
    "a\nb\tc",
    "é: #{}[]& \U0001f408",
    "".join(map(chr, range(1, 32))) + "\x7f",
    "".join(map(chr, range(128, 160))) + "\u2028\u2029\ufeff\ufffe\uffff\ud7ff\ue000",
    "",
]

FAKE_KUBECTL = r"""#!/usr/bin/env bash
printf '%q ' "$@" >>"$CALLS"
echo >>"$CALLS"
if [[ "$1" == apply ]]; then cat >"$MANIFEST"; fi
exit "${FAKE_CODE:-0}"
"""


class Kubernetes:
    """A fake kubectl on PATH, and what was asked of it."""

    def __init__(self, folder: Path):
        self.calls, self.manifest = folder / "calls", folder / "manifest"
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "kubectl").write_text(FAKE_KUBECTL)
        (self.bin / "kubectl").chmod(0o755)

    def start(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        self.calls.write_text("")
        names = {"CALLS": str(self.calls), "MANIFEST": str(self.manifest)}
        return subprocess.run(
            ["bash", str(ROOT / "launch" / "run.sh"), *arguments],
            env={"PATH": f"{self.bin}:/usr/bin:/bin", **names, **environment},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
        )

    def apply(self, *options: str, command=WORDS) -> dict:
        """What was applied, as Kubernetes would read it."""
        done = self.start("gke", "apply", *RUN, *options, "--", *command)
        assert done.returncode == 0, done.stderr
        assert self.calls.read_text() == "apply --filename=- \n"
        return yaml.safe_load(self.manifest.read_text("utf-8"))


@pytest.fixture
def kubernetes(tmp_path: Path) -> Kubernetes:
    return Kubernetes(tmp_path)


RUN = ("--name", "run-1", "--image", "us-docker.pkg.dev/p/r/dsd_jax:1")


def job_of(jobset: dict) -> tuple[int, dict]:
    (hosts,) = jobset["spec"]["replicatedJobs"]
    assert hosts["name"] == "hosts"
    return hosts["replicas"], hosts["template"]["spec"]


def pod_of(jobset: dict) -> tuple[dict, dict]:
    pod = job_of(jobset)[1]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def environment(container: dict) -> dict[str, str]:
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def expanded(text: str) -> str:
    """What Kubernetes makes of an element of `command` where no variable is set."""
    return re.sub(r"\$\$", "$", text)


@pytest.mark.parametrize(
    ("type_", "more", "accelerator", "topology", "hosts", "chips"),
    [
        ("v5litepod-1", (), "tpu-v5-lite-podslice", "1x1", 1, 1),
        ("v5litepod-8", (), "tpu-v5-lite-podslice", "2x4", 1, 8),
        ("v5litepod-16", (), "tpu-v5-lite-podslice", "4x4", 4, 4),
        ("v5litepod-128", (), "tpu-v5-lite-podslice", "8x16", 32, 4),
        ("v6e-4", (), "tpu-v6e-slice", "2x2", 1, 4),
        ("v6e-32", ("--topology", "4x8"), "tpu-v6e-slice", "4x8", 8, 4),
        ("v4-8", (), "tpu-v4-podslice", "2x2x1", 1, 4),
        ("v4-32", (), "tpu-v4-podslice", "2x2x4", 4, 4),
        ("v5p-64", (), "tpu-v5p-slice", "2x4x4", 8, 4),
        ("v5p-256", (), "tpu-v5p-slice", "4x4x8", 32, 4),
        ("v5p-64", ("--topology", "2x2x8"), "tpu-v5p-slice", "2x2x8", 8, 4),
    ],
)
def test_slice_has_the_hosts_of_its_type(
    kubernetes, type_, more, accelerator, topology, hosts, chips
):
    jobset = kubernetes.apply("--type", type_, *more)
    replicas, job = job_of(jobset)
    pod, container = pod_of(jobset)
    assert (replicas, job["parallelism"], job["completions"]) == (1, hosts, hosts)
    assert job["completionMode"] == "Indexed"
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    assert container["resources"] == {"limits": {"google.com/tpu": chips}}
    # A host alone has nobody to join; several may not run side by side without knowing it.
    assert environment(container).get("DSD_CLUSTER") == ("tpu" if hosts > 1 else None)
    assert ("annotations" in jobset["metadata"]) == (hosts > 1)
    assert "hostNetwork" not in pod and "volumes" not in pod


def test_several_slices_are_node_pools_of_their_own(kubernetes):
    jobset = kubernetes.apply("--type", "v5litepod-16", "--slices", "3")
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert jobset["metadata"] == {
        "name": "run-1",
        "annotations": {
            "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
        },
    }
    replicas, job = job_of(jobset)
    assert (replicas, job["completions"]) == (3, 4)
    assert pod_of(jobset)[0]["hostNetwork"] is True


def test_gpu_nodes_are_told_who_they_are(kubernetes):
    jobset = kubernetes.apply("--gpu", "nvidia-h100-80gb", "--gpus", "8", "--nodes", "2")
    replicas, job = job_of(jobset)
    pod, container = pod_of(jobset)
    assert (replicas, job["parallelism"], job["completions"]) == (1, 2, 2)
    assert "annotations" not in jobset["metadata"]
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    told = environment(container)
    assert told["DSD_COORDINATOR"] == "run-1-hosts-0-0.run-1:8476"
    assert told["DSD_PROCESSES"] == "2" and "DSD_CLUSTER" not in told
    (number,) = (entry for entry in container["env"] if entry["name"] == "DSD_PROCESS")
    path = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert number["valueFrom"] == {"fieldRef": {"fieldPath": path}}
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    assert mount["mountPath"] == "/dev/shm" and mount["name"] == volume["name"]
    assert volume["emptyDir"] == {"medium": "Memory"}
    _, alone = pod_of(kubernetes.apply("--gpu", "nvidia-l4"))
    told = {"DSD_STOPPED": "143", "DSD_ACCELERATOR": "cuda", "PYTHONUNBUFFERED": "1"}
    assert environment(alone) == told


def test_all_failures_but_a_mistake_are_tried_again(kubernetes):
    jobset = kubernetes.apply("--type", "v6e-16", "--retries", "7", "--grace", "60")
    policy = jobset["spec"]["failurePolicy"]
    (rule,) = policy.pop("rules")
    assert policy == {"maxRestarts": 7, "restartStrategy": "BlockingRecreate"}
    assert rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    _, job = job_of(jobset)
    pod, container = pod_of(jobset)
    (rule,) = job["podFailurePolicy"]["rules"]
    codes = {"containerName": container["name"], "operator": "In", "values": [2]}
    assert rule == {"action": "FailJob", "onExitCodes": codes}
    # Kubernetes takes a podFailurePolicy with this restartPolicy only.
    assert (job["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    assert pod["terminationGracePeriodSeconds"] == 60


@pytest.mark.parametrize("accelerator", [("--type", "v6e-16"), ("--gpu", "nvidia-l4")])
def test_words_arrive_as_they_are(kubernetes, accelerator):
    _, container = pod_of(kubernetes.apply(*accelerator, command=[*WORDS, *ODD]))
    assert [expanded(word) for word in container["command"]] == [*WORDS, *ODD]
    assert all("$(" not in word.replace("$$", "") for word in container["command"])
    assert container["image"] == RUN[-1]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("name", ["true", "no", "null", "yes", "on", "y", "e3"])
def test_words_of_yaml_stay_words(kubernetes, name, locale):
    options = ("--name", name, f"--image={name}", f"--gpu={name}", f"--account={name}")
    done = kubernetes.start(
        "gke", "apply", *options, "--nodes=2", "--", name, "1e3", "~", "é", LC_ALL=locale
    )
    assert done.returncode == 0, done.stderr
    jobset = yaml.safe_load(kubernetes.manifest.read_text("utf-8"))
    pod, container = pod_of(jobset)
    assert jobset["metadata"]["name"] == container["image"] == name
    assert pod["nodeSelector"]["cloud.google.com/gke-accelerator"] == name
    assert pod["serviceAccountName"] == name
    assert container["command"] == [name, "1e3", "~", "é"]


def test_spot_and_account(kubernetes):
    pod, _ = pod_of(kubernetes.apply("--type", "v6e-16"))
    assert "tolerations" not in pod and "serviceAccountName" not in pod
    pod, _ = pod_of(kubernetes.apply("--type", "v6e-16", "--spot", "--account", "writer"))
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    spot = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true"}
    assert pod["tolerations"] == [{**spot, "effect": "NoSchedule"}]
    assert pod["serviceAccountName"] == "writer"


def test_logs_and_delete(kubernetes):
    assert kubernetes.start("gke", "logs", "--name", "run-1").returncode == 0
    (selector,) = (x for x in shlex.split(kubernetes.calls.read_text()) if "selector" in x)
    assert selector.removeprefix("--selector=").split(",") == [
        "jobset.sigs.k8s.io/jobset-name=run-1",
        "jobset.sigs.k8s.io/job-index=0",
        "batch.kubernetes.io/job-completion-index=0",
    ]
    assert kubernetes.start("gke", "delete", "--name", "run-1").returncode == 0
    assert kubernetes.calls.read_text() == "delete jobset run-1 \n"


def test_exit_code_of_kubectl_is_passed_on(kubernetes):
    apply = ("gke", "apply", *RUN, "--type", "v6e-16", "--", *WORDS)
    assert kubernetes.start(*apply, FAKE_CODE="3").returncode == 3


def test_dry_run_prints_what_a_shell_would_apply(kubernetes):
    applied = kubernetes.apply("--type", "v6e-16", "--slices", "2", command=[*WORDS, *ODD])
    asked = ("gke", "apply", *RUN, "--type", "v6e-16", "--slices", "2", "--", *WORDS, *ODD)
    shown = kubernetes.start("--dry-run", *asked)
    assert (shown.returncode, kubernetes.calls.read_text()) == (0, "")
    kubernetes.manifest.unlink()
    paths = {"PATH": f"{kubernetes.bin}:{os.environ['PATH']}", "CALLS": str(kubernetes.calls)}
    subprocess.run(
        ["bash", "-c", shown.stdout], check=True, env={**paths, "MANIFEST": kubernetes.manifest}
    )
    assert yaml.safe_load(kubernetes.manifest.read_text("utf-8")) == applied
    shown = kubernetes.start("--dry-run", "gke", "delete", "--name", "run-1")
    assert shown.stdout == "kubectl delete jobset run-1 \n"


APPLY = ("gke", "apply", *RUN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gke", "start"), "gke: 'start' is no action; expected apply, logs or delete"),
        (("gke", "logs"), "gke logs: --name is ''; expected at most 40 of"),
        (("gke", "delete", "--name", "Run_1"), "gke delete: --name is 'Run_1'; expected"),
        (("gke", "delete", "--name", "a" * 41), f"gke delete: --name is '{'a' * 41}'; expected"),
        (("gke", "delete", "--name", "run-1", "--", "x"), "gke delete takes no command"),
        (("gke", "delete", "--name"), "gke: --name needs a value"),
        (("gke", "apply", "--name", "a", "--type", "v6e-8", "--", "x"), "gke apply: --image is m"),
        ((*APPLY, "--", "x"), "gke apply: expected --type such as v5litepod-16, or --gpu"),
        ((*APPLY, "--type", "v6e-8", "--gpu", "g", "--", "x"), "gke apply: expected --type or"),
        ((*APPLY, "--type", "v6e-8"), "gke apply: expected -- and a command"),
        ((*APPLY, "--type", "v6e-8", "--"), "gke: nothing after --"),
        ((*APPLY, "--type", "v3-8", "--", "x"), "gke: --type is 'v3-8'; expected v4-*"),
        ((*APPLY, "--type", "v6e-12", "--", "x"), "gke: --type v6e-12 has 12 chips, which"),
        ((*APPLY, "--type", "v6e-x", "--", "x"), "gke: --type v6e-x has 0 chips, which"),
        (
            (*APPLY, "--type", "v6e-16", "--topology", "2x4", "--", "x"),
            "gke: --type v6e-16 has 16 chips, which --topology '2x4' does not place",
        ),
        (
            (*APPLY, "--type", "v6e-8", "--slices", "2", "--", "x"),
            "gke: --slices 2 needs slices of several hosts each; v6e-8 has one",
        ),
        ((*APPLY, "--gpu", "g", "--nodes", "0", "--", "x"), "gke: --nodes is '0'; expected a nu"),
        ((*APPLY, "--colour", "red", "--", "x"), "gke: unknown option '--colour'"),
        ((*APPLY, "--colour=red", "--", "x"), "gke: unknown option '--colour'"),
        (
            (*APPLY, "--type", "v6e-8", "--", "caf\udce9"),
            "gke apply: 'caf\ufffd' is no text",
        ),
        ((*APPLY, "--type", "v6e-x-8", "--", "x"), "gke: --type v6e-x-8 has 0 chips"),
        ((*APPLY, "--type", f"v6e-{10**30}", "--", "x"), f"gke: --type v6e-{10**30} has 0 chips"),
        ((*APPLY, "--type", "v6e-8", "--topology", "9" * 30, "--", "x"), "gke: --type v6e-8 has"),
        (
            (*APPLY, "--retries", "08", "--", "x"),
            "gke: --retries is '08'; expected a number",
        ),
        ((*APPLY, "--grace=1e9", "--", "x"), "gke: --grace is '1e9'; expected a number from 1"),
        (
            (*APPLY, "--account", "a\x1b[2J", "--", "x"),
            "gke: --account is 'a?[2J'; expected a",
        ),
        ((*APPLY, "--gpu", "a\nb", "--", "x"), "gke: --gpu is 'a?b'; expected a GPU"),
    ],
)
def test_mistakes_are_one_sentence(kubernetes, arguments, message):
    done = kubernetes.start(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"run.sh: {message}") and done.stderr.count("\n") == 1
    assert kubernetes.calls.read_text() == ""


def test_image_has_what_the_launcher_needs():
    recipe = (ROOT / "launch" / "Dockerfile").read_text()
    assert "FROM python:3.12-slim" in recipe
    for name in re.findall(r"^COPY (\S+)", recipe, flags=re.MULTILINE):
        assert (ROOT / name).exists()
    assert "jax[${ACCELERATOR}]" in recipe and "gcsfs" in recipe
