"""Estimates of memory per row against what programs for a v5e took when they were compiled.

Compiling a real network takes minutes, so what `python -m dsd_jax.plan` found is written here.
"""

import jax
import pytest

from dsd_jax.config.config_files import read_config
from dsd_jax.config.run_config import RunConfig
from dsd_jax.diffusion.device_memory import GIB, Device, bytes_per_device, forward_bytes
from dsd_jax.few_shot.prompt_training import init_prompts, outputs_of_losses
from dsd_jax.few_shot.train_step import LossParams, TrainInputs, TrainStepConfig, item_bytes
from dsd_jax.models.unet import abstract_params
from dsd_jax.planning.inference_stages import all_weights, network, place
from dsd_jax.planning.plan_job import read_job
from dsd_jax.planning.training_stages import abstract_batch
from tests.planning.test_training_stages import MESH

# GiB of temporaries per row without gradients; per item of two pictures with them.
COMPILED = {"sd21": (0.059, 2.53), "sd15": (0.0825, 2.50)}


def planned(model):
    return read_job(read_config(RunConfig, f"configs/full_size.py:{model}", ()))


@pytest.mark.parametrize("model", COMPILED)
def test_rows_without_gradients_need_no_more_than_estimated(model):
    job = planned(model)
    estimate = forward_bytes(job.unet, job.latent, itemsize=2) / GIB
    assert COMPILED[model][0] <= estimate <= 2.5 * COMPILED[model][0]


def test_items_with_gradients_need_no_more_than_estimated():
    """And the recipe's two parts fit a v5e: a run of the config says nothing of more."""
    job = planned("sd21")
    recipe = job.recipes["prompts"]
    wanted = outputs_of_losses(job.unet, recipe)
    step = TrainStepConfig(network(job, wanted, recipe.remat), recipe, MESH)
    tree = jax.eval_shape(lambda: init_prompts(job.unet, recipe, 0))
    params = place(job, MESH, abstract_params(job.unet))
    batch = abstract_batch(job, recipe, MESH, 8)
    inputs = TrainInputs(tree, params, LossParams({"dsd": 1.0}), batch)
    size = item_bytes(step, inputs)
    assert 1.0 <= size / GIB / COMPILED["sd21"][1] <= 1.3
    room = Device.of("tpu", int(15.75 * GIB)).free_bytes(bytes_per_device(all_weights(job, MESH)))
    assert recipe.batch // MESH.size // recipe.accumulate <= room / size
