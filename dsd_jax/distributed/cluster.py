"""The place of this process among the processes of a run, read from the environment.

`launch/run.sh` says it in `DSD_COORDINATOR`, `DSD_PROCESSES` and `DSD_PROCESS` to processes on one
machine and to pods with GPUs, and in `DSD_CLUSTER` to those of a cluster in which JAX finds its way
by itself. The variables of Slurm's `srun` do, too, and those that GKE gives to pods with TPUs.
"""

import os
import warnings
from typing import NamedTuple

from pydantic import Field

from dsd_jax.errors import UserError
from dsd_jax.io.validation import Checked, parse

_DSD = ("DSD_COORDINATOR", "DSD_PROCESSES", "DSD_PROCESS")
_CLUSTERS = ("tpu", "slurm")
_TPU_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
_MAX_PROCESSES = 100_000


class Place(Checked):
    """A process among several, by address and number.

    Attributes:
        address: HOST:PORT at which the first process listens.
        processes: how many there are.
        number: of this one, from 0.
    """

    address: str = Field(alias="DSD_COORDINATOR", pattern=r"^([^\s:/]+|\[[0-9a-fA-F:]+\]):\d{1,5}$")
    processes: int = Field(alias="DSD_PROCESSES", ge=1, le=_MAX_PROCESSES)
    number: int = Field(alias="DSD_PROCESS", ge=0, le=_MAX_PROCESSES)


class _Step(Checked):
    """The variables that srun sets for a step of a job."""

    processes: int = Field(alias="SLURM_STEP_NUM_TASKS", ge=1, le=_MAX_PROCESSES)


class Detected(NamedTuple):
    """A process among several that JAX finds by itself.

    Attributes:
        because: the variable that says so.
        processes: how many there are, where JAX would look for it in the wrong place.
    """

    because: str
    processes: int | None = None


def find_place() -> Place | Detected | None:
    """Return this process's place; None where it is the only one.

    Raises:
        UserError: the variables contradict each other, or are none that we know.
    """
    given = [name for name in _DSD if name in os.environ]
    if given:
        if len(given) < len(_DSD):
            missing = next(name for name in _DSD if name not in given)
            raise UserError(f"{given[0]} is set but {missing} is not; set {', '.join(_DSD)}.")
        return _given_place()
    named = os.environ.get("DSD_CLUSTER", "")
    if named and named not in _CLUSTERS:
        raise UserError(f"DSD_CLUSTER is '{named}'; expected one of {', '.join(_CLUSTERS)}.")
    if named == "slurm":
        return _named_slurm_place()
    if named:
        return Detected(f"DSD_CLUSTER={named}")
    for name in _TPU_HOSTS:
        if "," in os.environ.get(name, ""):
            return Detected(f"{name}={os.environ[name]}")
    if os.environ.get("MEGASCALE_NUM_SLICES", "1") != "1":  # GKE says it of one slice, too
        return Detected(f"MEGASCALE_NUM_SLICES={os.environ['MEGASCALE_NUM_SLICES']}")
    return _slurm_place()


def _given_place() -> Place:
    values: dict[str, int | str] = {name: _number(os.environ[name]) for name in _DSD[1:]}
    values[_DSD[0]] = os.environ[_DSD[0]]
    place = parse(Place, values, "the environment", "bash launch/run.sh local sets all three")
    if place.number >= place.processes:
        raise UserError(
            f"DSD_PROCESS is {place.number} and DSD_PROCESSES is {place.processes}; expected a "
            f"number from 0 to {place.processes - 1}."
        )
    return place


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text


def _slurm_place() -> Detected | None:
    """Return the place of one of several tasks of srun.

    An allocation, the script of a batch job and an interactive shell have the number of the job's
    tasks, too, but are one process: whoever waits for the others there waits for ever.
    """
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if "SLURM_PROCID" in os.environ and tasks != "1":
        return Detected(f"SLURM_STEP_NUM_TASKS={tasks}", _step_tasks())
    return None


def _named_slurm_place() -> Detected:
    """Return the place of a task of srun, of which there may be one alone.

    An interactive shell is a step of one task, too, in a job of several. Otherwise the step's
    number counts: SLURM_NTASKS is the job's under `srun --preserve-env`.
    """
    job, step = (os.environ.get(name) for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"))
    if step is None or "SLURM_PROCID" not in os.environ or (step == "1" and job not in (None, "1")):
        raise UserError(
            "DSD_CLUSTER is slurm, but srun did not start this process: SLURM_STEP_NUM_TASKS is "
            f"{step or 'not set'} where SLURM_NTASKS is {job or 'not set'}; put srun before the "
            "command, or unset DSD_CLUSTER."
        )
    return Detected("DSD_CLUSTER=slurm", _step_tasks())


def _step_tasks() -> int:
    values = {"SLURM_STEP_NUM_TASKS": _number(os.environ["SLURM_STEP_NUM_TASKS"])}
    return parse(_Step, values, "the environment", "put srun before the command").processes


def warn_of_idle_tasks() -> None:
    """Warn where Slurm has tasks for several processes, and only this one was started."""
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if tasks != "1" and find_place() is None:
        warnings.warn(
            f"Slurm has {tasks} tasks for this job, but srun did not start this process: it runs "
            "alone. To run on all of them put srun before the command.",
            stacklevel=2,
        )
