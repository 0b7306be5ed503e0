"""The short rehearsal: commands on a twin of Stable Diffusion 2.1 at 512 pixels, and one of CLIP.

The sizes of pictures and latents are those of the published models, which 64-pixel models can't
stand in for; depth and numbers of heads are so in `python -m tests.rehearsal`, the long one.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from dsd_jax import score, train
from dsd_jax.diffusion.device_memory import Device, forward_rows
from dsd_jax.matching import batching
from dsd_jax.models.components import UNET
from dsd_jax.weights.component_files import read_config
from tests.rehearsal.items import write_own
from tests.rehearsal.twins import write_twin

OWN = Path(__file__).parents[2] / "configs" / "own.py"
SHOTS, TEST = 10, 2
CONFIG = {
    "cpu_devices": -1,  # as many as this process has
    "timesteps": 1,
    "noises": 1,
    "seeds": 1,
    "shots": SHOTS,
    "methods": "attention",
    "data.shots_part": SHOTS,
    "recipes": "authors",
    "learn.authors.methods": "attention",
    "learn.authors.steps": 2,
    "learn.authors.check_every": 2,
    "learn.authors.remat": "blocks",  # as gradients at 512 pixels need
    "learn.authors.learning_rate": 1e-2,
    "tune.kind": "projections",  # compiles faster
    "tune.steps": 1,
    "tune.batch": 2,
}


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return write_twin("sd21", tmp_path_factory.mktemp("models") / "sd21", deep=False)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return write_own(tmp_path_factory.mktemp("items") / "own", SHOTS + TEST)


@pytest.fixture(scope="module")
def rows():
    """The rows of every call of the UNet without gradients, from the first command's first."""
    rows, original = [], batching.forward_terms

    def counted(config, params, adapters, inputs):
        captions = inputs.texts.states.shape[1]
        rows.append(len(inputs.latents) * len(inputs.timesteps) * captions)
        return original(config, params, adapters, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "forward_terms", counted)
        yield rows


@pytest.fixture(scope="module")
def workdir(twin, items, rows, tmp_path_factory):
    """The folder of a run of `train` with prepared pictures and a CLIP."""
    folder = tmp_path_factory.mktemp("runs")
    clip = write_twin("clip-vit-l", folder / "clip", deep=False)
    fields = CONFIG | {
        "weights": twin,
        "clip": clip,
        "cache": folder / "cache",
        "data.folder": items,
        "data.prepared": folder / "prepared",
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    train.main([f"--config={OWN}", f"--workdir={folder / 'own'}", *overrides])
    return folder / "own"


def test_rows_of_the_report(workdir):
    """Zero-shot, learned and CLIP's rows are all there: prepared pictures serve every size."""
    rows = json.loads((workdir / "report.json").read_text())["results"]
    found = {(row["method"], row["prompts"]) for row in rows if row["kind"] == "mean"}
    assert found == {
        *(("attention", None), ("attention", f"authors-{SHOTS}")),
        *(("clip", None), ("clip", f"tuned-{SHOTS}")),
    }
    assert {row["n"] for row in rows if row["kind"] == "mean"} == {TEST}
    assert "<img" in (workdir / "report.html").read_text()


def test_held_out_shots_are_looked_at(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    looks = {line["phase"]: line["held_out"] for line in lines if "held_out" in line}
    losses = looks[f"authors-{SHOTS}-0"]
    assert list(losses) == ["0", "2"] and np.isfinite(list(losses.values())).all()


def test_no_call_has_more_rows_than_its_device_takes(workdir, twin, rows):
    unet = read_config(twin, UNET)
    side, devices = unet.sample_size, jax.device_count()
    most = forward_rows(Device.local(), unet, (side, side, unet.in_channels), itemsize=4, params=0)
    assert side == 64 and len(rows) > (SHOTS + TEST) / devices
    assert max(rows) <= most * devices


def test_learned_prompts_score_with_heat_maps(workdir, twin, items, tmp_path, capsys):
    """Prompts that a run of `train` wrote are enough to say by what and how often to score."""
    picture = items / "pictures" / "4.jpg"
    words = [f"--weights={twin}", f"--prompts={learned(workdir)}", f"--image={picture}", "--json"]
    captions = ["--caption=a red ball", "--caption=a blue ball"]
    score.main([*words, *captions, f"--heatmaps={tmp_path / 'maps'}"])
    found = json.loads(capsys.readouterr().out)
    assert np.shape(found["scores"]) == (1, 2) and np.isfinite(found["scores"]).all()
    assert (found["method"], found["timesteps"]) == ("attention", 1)
    assert len(found["heatmaps"]) == 2
    for file in found["heatmaps"]:
        with Image.open(file) as image:
            assert np.ptp(np.asarray(image)) > 0


def learned(workdir: Path) -> Path:
    """Return the folder of what the recipe of the authors learned."""
    return workdir / "prompts" / f"authors-{SHOTS}" / "seed-0"
