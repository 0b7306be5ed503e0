"""Prints versions, devices and folders, for reports of bugs; works where JAX does not."""

import json
import os
import platform
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from dsd_jax.cli import Parser, run_command
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import cache_folder
from dsd_jax.version import __version__

EXAMPLE = "dsd-jax env"
PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "huggingface-hub"),
    *("safetensors", "numpy", "ml-dtypes", "pillow", "tensorflow-datasets", "libtpu"),
    *("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin", "diffusers", "torch"),
)
# Variables that change what the program does; none of them holds a secret.
PREFIXES = ("DSD_", "JAX_", "XLA_", "TPU_", "CUDA_VISIBLE", "NVIDIA_VISIBLE", "TF_CPP_", "HF_HUB_")
TIMEOUT = 120  # seconds for JAX to find its devices
# Run in a process of its own: JAX may hang, or end the process, where a driver is damaged.
PROBE = """
import json, jax
print(json.dumps([[d.platform, d.device_kind, (d.memory_stats() or {}).get("bytes_limit")]
                  for d in jax.local_devices()]))
"""


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("env", __doc__ or "", EXAMPLE)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    flags: Namespace = make_parser().parse_args(argv)
    facts = find_facts()
    if flags.json:
        print(json.dumps(facts, indent=1))
    else:
        width = max(map(len, facts))
        print("\n".join(f"{name:<{width}}  {value}" for name, value in facts.items()))


def find_facts() -> dict[str, str]:
    """Return what a bug may depend on, by name."""
    environment = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(PREFIXES)]
    facts = {
        "dsd_jax": f"{__version__} in {Path(__file__).parent}{_commit()}",
        "python": f"{platform.python_version()}, {sys.executable}",
        "system": f"{platform.platform()}, {os.cpu_count()} CPU cores{_memory()}",
        "devices": find_devices(),
    }
    if driver := _answer(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]):
        facts["driver"] = f"NVIDIA {driver}"
    facts["packages"] = ", ".join(_versions())
    facts["cache"] = _cache()
    facts["environment"] = ", ".join(environment) or "nothing set that the program looks at"
    return facts


def find_devices() -> str:
    """Return JAX's devices in words, or why it finds none."""
    command = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"JAX has not answered in {TIMEOUT} seconds; does another process use the device?"
    if done.returncode:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        return f"JAX fails: {last}"
    devices = json.loads(done.stdout.strip().splitlines()[-1])
    kinds = [
        f"{name} ({kind}{f', {size / 2**30:.1f} GiB' if size else ''})"
        for name, kind, size in devices
    ]
    return ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))


def _versions() -> list[str]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):  # a system that does not tell
        return ""
    return f", {size / 2**30:.1f} GiB of memory"


def _commit() -> str:
    """Return the commit of a clone, and whether files of it have been changed; "" elsewhere."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    commit = _answer(["git", "-C", str(root), "rev-parse", "--short", "HEAD"])
    changed = _answer(["git", "-C", str(root), "status", "--porcelain", "-uno"])
    return f", commit {commit}{' and changes' if changed else ''}" if commit else ""


def _cache() -> str:
    try:
        folder = cache_folder()
        above = next(path for path in (folder, *folder.parents) if path.exists())
        return f"{folder}, {shutil.disk_usage(above).free / 2**30:.1f} GiB free"
    except (UserError, OSError) as error:
        return f"none: {error}"


def _answer(command: Sequence[str]) -> str:
    """Return the first line that a program prints; "" if there is none, or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.partition("\n")[0].strip() if not done.returncode else ""


if __name__ == "__main__":
    run_command(main)
