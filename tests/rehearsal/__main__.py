"""Rehearse real runs: commands as users type them, on narrow twins of published models.

    python -m tests.rehearsal [--models sd21,sd15] [--stages train,score] [--folder DIR]

Every command runs in a process of its own, in a folder elsewhere; what it wrote, how it ended and
what it took is checked and shown. Exit code 1 if anything is wrong. It needs 2 GB of disk.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import jax

from tests.rehearsal.items import write_comvg, write_own
from tests.rehearsal.play import STAGES, Line, Play, Plot
from tests.rehearsal.twins import write_twin

SHOTS, TEST = 10, 2  # as few shots as can be learned from
_FEW = {
    "noises": 1,
    "seeds": 1,
    "methods": ("attention", "dsd"),
    "cpu_devices": 1,
    "cache": "cache",
}
_LEARN = {
    "recipes": ("weights", "authors"),
    "shots": SHOTS,
    "data.shots_part": SHOTS,
    "learn.weights.methods": ("attention",),
    "learn.weights.ridges": 10.0,
    "learn.authors.steps": 4,
    "learn.authors.check_every": 2,
    "learn.authors.remat": "blocks",  # as gradients at 512 pixels need
    "learn.authors.learning_rate": 1e-3,
}
_CLIP = {"clip": "clip-vit-l", "tune.steps": 2, "tune.batch": 2}
_OWN = {"data.folder": "own", "data.prepared": "prepared"}
_COMVG = {"data.folder": "comvg", "data.shots_part": SHOTS}
_NO_SHOTS = {"recipes": (), "data.shots_part": SHOTS}
PLOTS = {
    "sd21": Plot(
        tuple(STAGES),
        "own.py",
        {**_FEW, **_LEARN, **_CLIP, **_OWN, "timesteps": 1},
        {"timesteps": 10},
    ),
    "sd15": Plot(
        ("train", "score", "convert"),
        "comvg.py",
        {**_FEW, **_LEARN, **_COMVG, "timesteps": 1, "cache": ""}
        | {"dtype": "bfloat16", "fsdp": 2, "cpu_devices": 2},
    ),
    "sd21-v": Plot(
        ("evaluate", "score"),
        "own.py",
        {**_FEW, **_NO_SHOTS, "data.folder": "own", "timesteps": 1},
    ),
    "sdxl": Plot(
        ("evaluate", "convert"),
        "own.py",
        {**_FEW, **_NO_SHOTS, **_OWN, "data.prepared_size": 1024, "timesteps": 1},
    ),
}


def main() -> None:
    """Rehearse the models and stages that the command line names."""
    parser = argparse.ArgumentParser(
        "python -m tests.rehearsal",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", default=",".join(PLOTS), help="default: %(default)s")
    parser.add_argument("--stages", default=",".join(STAGES), help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="keep all in this folder, which is new")
    flags = parser.parse_args()
    models, stages = flags.models.split(","), flags.stages.split(",")
    for asked, known in ((models, PLOTS), (stages, STAGES)):
        if unknown := set(asked) - set(known):
            parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(known)}")
    jax.config.update("jax_platforms", "cpu")  # of this process, which only looks at shapes
    with tempfile.TemporaryDirectory() as temporary:
        folder = (flags.folder or Path(temporary)).absolute()
        lines = [line for model in models for line in rehearse(model, stages, folder)]
    print(table(lines))
    sys.exit(any(line.wrong for line in lines))


def rehearse(model: str, stages: list[str], folder: Path) -> list[Line]:
    """Run a model's stages, those of `stages`, in a folder; return a line for each command."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in (("own", write_own), ("comvg", write_comvg)):
        if not (folder / name).exists():
            write(folder / name, SHOTS + TEST)
    for name in (model, "clip-vit-l"):
        if not (folder / name).exists():
            write_twin(name, folder / name)
    play = Play(model, folder, PLOTS[model])
    for stage in play.plot.stages:
        if stage in stages:
            STAGES[stage](play)
    return play.lines


def table(lines: list[Line]) -> str:
    """Return what each command took, and what was wrong with it."""
    head = ("model", "stage", "s", "CPU s", "GB", "call MB", "planned MB", "step MB", "result")
    rows = [head]
    for line in lines:
        memory = (line.taken, line.planned, line.step)
        rows.append(
            (
                *(line.model, line.stage),
                *(f"{line.done.seconds:.0f}", f"{line.done.cpu_seconds:.0f}"),
                f"{line.done.gigabytes:.1f}",
                *(f"{size / 1e6:.0f}" if size else "" for size in memory),
                line.wrong or "right",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    told = [
        "  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    wrong = sum(bool(line.wrong) for line in lines)
    seconds = sum(line.done.cpu_seconds for line in lines)
    end = f"{len(lines)} commands, {wrong} wrong, {seconds / 60:.1f} CPU-minutes"
    return "\n".join([*told, f"{end} on {os.cpu_count()} cores"])


if __name__ == "__main__":
    main()
