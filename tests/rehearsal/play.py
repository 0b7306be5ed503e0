"""The stages of a rehearsal with one model: their commands, and what must be true at the end."""

import json
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file

from tests.rehearsal import device_memory
from tests.rehearsal.command import Done, Stop, run_command

ROOT = Path(__file__).parents[2]
PREEMPTED = 75  # the exit code of a command that SIGTERM stopped and the same command resumes
PODS = ["bash", str(ROOT / "launch" / "run.sh"), "local", "--procs", "2", "--devices", "2", "--"]


class Line(NamedTuple):
    """A line of the table: a command, how it went, and what was wrong, "" if nothing was.

    taken, planned: bytes of the largest call of the UNet without gradients; 0 where not measured.
    step: bytes of a step of learning.
    """

    model: str
    stage: str
    done: Done
    wrong: str = ""
    taken: int = 0
    planned: int = 0
    step: int = 0


class Plot(NamedTuple):
    """What is rehearsed with a model.

    Attributes:
        stages: names of `STAGES`, in their order.
        file: in `configs`.
        fields: overrides of the config.
        evaluated: overrides for `evaluate` alone.
    """

    stages: tuple[str, ...]
    file: str
    fields: Mapping[str, Any]
    evaluated: Mapping[str, Any] = {}


class Wrong(Exception):
    """Something that a command should have done is not so."""


def check(good: bool, otherwise: str) -> None:
    """Raise `Wrong` unless it is good."""
    if not good:
        raise Wrong(otherwise)


class Play:
    """One model's rehearsal in a folder.

    Args:
        model: a name of `twins.NAMES`.
        folder: where all is written; the model is in `folder / model`.
        plot: what is rehearsed.
    """

    def __init__(self, model: str, folder: Path, plot: Plot):
        """Start with no lines."""
        self.model, self.folder, self.plot = model, folder, plot
        self.lines: list[Line] = []

    @property
    def weights(self) -> Path:
        """The model's folder."""
        return self.folder / self.model

    def command(self, name: str, workdir: str = "", **fields: Any) -> list[str]:
        """Return `python -m dsd_jax.NAME` with the config and --workdir where there is one."""
        words = [sys.executable, "-m", f"dsd_jax.{name}"]
        if not workdir:
            return words
        every = {"weights": self.model, **self.plot.fields, **fields}
        overrides = [f"--config.{field}={_text(value)}" for field, value in every.items()]
        config = f"--config={ROOT / 'configs' / self.plot.file}"
        return [*words, config, f"--workdir={self.model}-{workdir}", *overrides]

    @contextmanager
    def stage(self, name: str) -> Iterator["Stage"]:
        """Yield a stage to run a command in; note how it went, and what turns out `Wrong`."""
        stage, wrong = Stage(self, name), ""
        try:
            yield stage
        except Wrong as error:
            wrong = str(error)
        self.lines.append(Line(self.model, name, stage.done, wrong, **stage.memory))
        print(f"  {wrong or 'right'}", file=sys.stderr, flush=True)

    def report(self, workdir: str) -> list[dict[str, Any]]:
        """Return the rows of a run's report."""
        file = self.folder / f"{self.model}-{workdir}" / "report.json"
        check(file.is_file(), f"{file} is missing")
        return json.loads(file.read_text())["results"]

    def losses(self, workdir: str) -> dict[str, np.ndarray]:
        """Return the held-out losses of all that a run learned, by its phase."""
        lines = (self.folder / f"{self.model}-{workdir}" / "metrics.jsonl").read_text().splitlines()
        looks = [line for line in map(json.loads, lines) if "held_out" in line]
        return {look["phase"]: np.array(list(look["held_out"].values())) for look in looks}

    def prompts(self, workdir: str) -> dict[str, np.ndarray]:
        """Return all tensors of the prompts that a run learned, by file and name."""
        folder = self.folder / f"{self.model}-{workdir}" / "prompts"
        files = sorted(folder.rglob("*.safetensors"))
        check(bool(files), f"{folder} holds no prompts")
        return {
            f"{file.relative_to(folder)}/{name}": tensor
            for file in files
            for name, tensor in load_file(file).items()
        }


class Stage:
    """One command of a play; `done` and `memory` say how it went once it ran."""

    def __init__(self, play: Play, name: str):
        """Nothing has run yet."""
        self._play, self._name = play, name
        self.done: Done | None = None
        self.memory: dict[str, int] = {}

    def run(
        self, words: list[str], *, code: int = 0, stop: Stop | None = None, itemsize: int = 0
    ) -> Done:
        """Run a command to its end.

        Args:
            words: of the command line.
            code: the exit code that is right.
            stop: when it is sent a signal.
            itemsize: bytes of a number in the run's dtype, by which the memory of its calls is held
                against what was planned; 0 leaves it unmeasured.

        Raises:
            Wrong: the exit code is another, it ended in a traceback, or took too much memory.
        """
        print(f"{self._play.model} {self._name}: {shlex.join(words)}", file=sys.stderr, flush=True)
        log = self._play.folder / "logs" / f"{self._play.model}-{self._name}"
        log.parent.mkdir(exist_ok=True)
        own = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "DSD_VENV": sys.prefix}
        dump = log.with_suffix(".xla")
        own["DSD_CACHE"] = str(self._play.folder / "caches")
        if itemsize:  # programs from a cache of compiled ones are not compiled, nor told of
            own["XLA_FLAGS"] = device_memory.dumping_flags(dump)
            own["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        # Not the log level, which JAX sets in the process that imports it, as this one has.
        users = {name: x for name, x in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
        self.done = done = run_command(words, self._play.folder, log, {**users, **own}, stop)
        last = done.err.strip().splitlines()[-1:]
        check(done.code == code, f"exit code {done.code} instead of {code}: {last}")
        check("Traceback" not in done.err, f"a traceback, see {log}.err")
        if itemsize:
            self._measure(dump, itemsize)
        return done

    def _measure(self, dump: Path, itemsize: int) -> None:
        """Note the memory of the command's calls of the UNet, and forget XLA's files."""
        self.memory = {
            "taken": device_memory.taken(dump, device_memory.FORWARD),
            "planned": device_memory.planned(self._play.weights, itemsize),
            "step": device_memory.taken(dump, device_memory.UPDATE),
        }
        shutil.rmtree(dump)
        taken, planned = self.memory["taken"], self.memory["planned"]
        check(0 < taken <= planned, f"{taken} bytes a call, {planned} were planned")


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def train(play: Play) -> None:
    """Learn, tune the CLIP and evaluate, undisturbed."""
    with play.stage("train") as stage:
        stage.run(play.command("train", "train"), itemsize=_itemsize(play))
        rows = {(row["method"], row["prompts"]) for row in play.report("train")}
        recipes = play.plot.fields["recipes"]
        few = {prompts.rsplit("-", 1)[0] for _, prompts in rows if prompts}
        wanted = {*recipes, "tuned"} if play.plot.fields.get("clip") else {*recipes}
        check(few == wanted, f"learned rows {sorted(few)} instead of {sorted(wanted)}")
        zero_shot = {method for method, prompts in rows if not prompts} - {"clip"}
        check(zero_shot == set(play.plot.fields["methods"]), f"zero-shot rows {sorted(zero_shot)}")


def resume(play: Play) -> None:
    """Learn the same in another folder: preempted, killed after that checkpoint, then resumed."""
    words = play.command("train", "resumed")
    step = r"learning authors-.*; step (?:{}) of \d+"
    stop = Stop(step.format(r"[1-9]\d*"), signal.SIGTERM)
    with play.stage("preempted") as stage:
        done = stage.run(words, code=PREEMPTED, stop=stop)
        check("resume with the same command" in done.err, "it does not say how to resume")
        (at,) = re.findall(r"stopped at step (\d+)", done.err)
        later = "|".join(str(number) for number in range(int(at) + 1, 1000))
        stop = Stop(step.format(later), signal.SIGKILL)  # a log shows some of the steps
    with play.stage("killed") as stage:
        stage.run(words, code=-signal.SIGKILL, stop=stop)
    with play.stage("resumed") as stage:
        stage.run(words)
        check(play.report("resumed") == play.report("train"), "other rows than undisturbed")
        _check_same_learned(play, "resumed", tolerance=0)


def hosts(play: Play) -> None:
    """Learn the same on two processes with two devices each."""
    words = [*PODS, *play.command("train", "hosts")]
    words[words.index(sys.executable)] = "python"
    with play.stage("hosts") as stage:
        stage.run(words)
        check(play.report("hosts") == play.report("train"), "other rows than one process")
        _check_same_learned(play, "hosts", tolerance=1e-3)


def evaluate(play: Play) -> None:
    """Evaluate with weights over two devices, under prompts at their timesteps if there are any."""
    found = sorted((play.folder / f"{play.model}-train" / "prompts").glob("*/seed-0"))
    given = [f"--prompts={folder.relative_to(play.folder)}" for folder in found]
    fields = {**play.plot.evaluated, "fsdp": 2, "cpu_devices": 2}
    words = [*play.command("evaluate", "evaluate", **fields), *given]
    with play.stage("evaluate") as stage:
        stage.run(words, itemsize=_itemsize(play))
        rows = play.report("evaluate")
        there = {row["prompts"] for row in rows} - {None}
        wanted = {str(folder.relative_to(play.folder)) for folder in found}
        check({str(x) for x in there} >= wanted, f"rows of {sorted(there)}")
        check(all(np.isfinite(row["value"]) for row in rows), "values that are no numbers")


def score(play: Play) -> None:
    """Score two pictures and two captions, with heat maps."""
    found = sorted((play.folder / f"{play.model}-train" / "prompts").glob("authors*/seed-0"))
    given = [f"--prompts={found[0].relative_to(play.folder)}"] if found else ["--timesteps=1"]
    pictures = sorted(play.folder.glob("own/pictures/*.jpg"))[:2]
    words = [
        *(*play.command("score"), f"--weights={play.model}", "--json", *given),
        *(f"--image={picture.relative_to(play.folder)}" for picture in pictures),
        *("--caption=a red ball", "--caption=a green ball on the left"),
        f"--heatmaps={play.model}-heatmaps",
    ]
    with play.stage("score") as stage:
        done = stage.run(words)
        found = json.loads(done.out)
        check(np.isfinite(found["scores"]).all(), "scores that are no numbers")
        check(np.shape(found["scores"]) == (2, 2), "not a score for each picture and caption")
        maps = [play.folder / file for file in found["heatmaps"]]
        check(len(maps) == 4 and all(file.is_file() for file in maps), "heat maps are missing")


def convert(play: Play) -> None:
    """Convert the prompts to diffusers' LoRA and back, and the model to Flax's form and back."""
    found = sorted((play.folder / f"{play.model}-train" / "prompts").glob("authors*/seed-0"))
    for folder in filter(_tensors, found):  # what the held-out shots refuse has none
        there, back = f"{play.model}-diffusers", f"{play.model}-prompts"
        source = str(folder.relative_to(play.folder))
        with play.stage("to-diffusers") as stage:
            stage.run([*play.command("convert"), source, there])
        words = [*play.command("convert"), there, back, f"--weights={play.model}"]
        with play.stage("from-diffusers") as stage:
            stage.run(words)
            _check_equal(_tensors(play.folder / back), _tensors(folder), tolerance=1e-6)
    there, back = f"{play.model}-msgpack", f"{play.model}-safetensors"
    with play.stage("to-msgpack") as stage:
        stage.run([*play.command("convert"), play.model, there])
    with play.stage("to-safetensors") as stage:
        stage.run([*play.command("convert"), there, back])
        _check_equal(_tensors(play.folder / back), _tensors(play.weights), tolerance=0)


def plan(play: Play) -> None:
    """Plan the run's stages on eight GPUs."""
    config = play.command("train", "plan")[3:]
    words = [*play.command("plan"), *(word for word in config if "--workdir" not in word)]
    with play.stage("plan") as stage:
        done = stage.run([*words, "--gpus=8"])
        check("lowered and read back" in done.out, "it says nothing of a program")


STAGES = {stage.__name__: stage for stage in (train, resume, hosts, evaluate, score, convert, plan)}


def _itemsize(play: Play) -> int:
    return 2 if play.plot.fields.get("dtype") == "bfloat16" else 4


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    return {
        f"{file.parent.relative_to(folder)}/{name}": tensor
        for file in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def _check_same_learned(play: Play, workdir: str, *, tolerance: float) -> None:
    """Raise `Wrong` unless a run learned what `train` did, and on the same way.

    Prompts that the held-out shots refuse are all alike, so their losses are compared, too.
    """
    _check_equal(play.losses(workdir), play.losses("train"), tolerance=tolerance)
    _check_equal(play.prompts(workdir), play.prompts("train"), tolerance=tolerance)


def _check_equal(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], *, tolerance: float
) -> None:
    """Raise `Wrong` unless the tensors are the same up to a tolerance."""
    check(found.keys() == expected.keys(), "other tensors")
    for name, tensor in expected.items():
        apart = np.abs(found[name].astype(np.float64) - tensor).max(initial=0)
        check(apart <= tolerance, f"{name} is off by {apart:.2g}")
