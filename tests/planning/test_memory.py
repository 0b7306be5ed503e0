"""Estimates of memory per row against what programs for a v5e took when they were compiled.

Compiling a real network takes minutes, so what `python -m dsd_jax.plan` found is written here.
"""

import pytest

from dsd_jax.config.config_files import read_config
from dsd_jax.config.run_config import RunConfig
from dsd_jax.diffusion.device_memory import GIB, Device, forward_bytes
from dsd_jax.few_shot.train_step import item_bytes
from dsd_jax.planning.planned_run import read_planned_run
from dsd_jax.planning.stage_programs import resident_bytes, training_inputs
from tests.planning.test_run_stages import MESH

# GiB of temporaries per row without gradients; per item of two pictures with them.
COMPILED = {"sd21": (0.059, 2.53), "sd15": (0.0825, 2.50)}


def planned(model):
    return read_planned_run(read_config(RunConfig, f"configs/full_size.py:{model}", ()))


@pytest.mark.parametrize("model", COMPILED)
def test_rows_without_gradients_need_no_more_than_estimated(model):
    run = planned(model)
    estimate = forward_bytes(run.unet, run.latent, itemsize=2) / GIB
    assert COMPILED[model][0] <= estimate <= 2.5 * COMPILED[model][0]


def test_items_with_gradients_need_no_more_than_estimated():
    """And the recipe's two parts fit a v5e: a run of the config says nothing of more."""
    run = planned("sd21")
    recipe = run.recipes["prompts"]
    size = item_bytes(*training_inputs(run, recipe, MESH, items=8))
    assert 1.0 <= size / GIB / COMPILED["sd21"][1] <= 1.3
    room = Device.of("tpu", int(15.75 * GIB)).free_bytes(resident_bytes(run, MESH))
    assert recipe.batch // MESH.size // recipe.accumulate <= room / size
