"""The real steps of a small network, planned: what crosses devices, and what grows with them."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType

from dsd_jax import learning
from dsd_jax.diffusion import Schedule
from dsd_jax.errors import UserError
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.planning.gpu import lower_for_cuda
from dsd_jax.planning.plan import device_bytes, estimate, traffic
from dsd_jax.planning.steps import (
    Job,
    least_of_item,
    plan_scoring,
    plan_training,
    scoring_step,
    training_step,
)
from dsd_jax.planning.topology import make_slice
from dsd_jax.sharding import AXES
from dsd_jax.shots import Recipe
from tests.few_shots import LORA
from tests.random_model import UNET, UNET_XL

SHAPE = UNET | {
    "block_out_channels": [32],
    "down_block_types": ["CrossAttnDownBlock2D"],
    "up_block_types": ["UpBlock2D"],
    "sample_size": 16,
    "cross_attention_dim": 32,
}
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"
CHANGES = {"methods": ("relative",), "denoise": 0.0, "timesteps": 1, "remat": "products"}


def job(fsdp=1, pictures=2, captions=1, **changes) -> Job:
    unet = UNetConfig.from_json(SHAPE)
    recipe = Recipe(layers=(LAYER,), **LORA | CHANGES | changes)
    return Job(unet, Schedule(), jnp.bfloat16, recipe, pictures, captions, fsdp)


@pytest.fixture(scope="module")
def slices():
    return {name: make_slice(name) for name in ("v5e:2x4", "v5e:4x4")}


@pytest.fixture(scope="module")
def plan(slices):
    return plan_training(job(), slices["v5e:2x4"], 4)


def prompt_bytes(planned):
    tree = jax.eval_shape(lambda: learning.init(planned.unet, planned.recipe, 0))
    return sum(4 * leaf.size for leaf in jax.tree.leaves(tree))


def test_sdxl_has_pooled_text():
    """The step that is planned for it takes what its UNet asks for, and can be traced."""
    mesh = AbstractMesh((1, 1), AXES, axis_types=(AxisType.Auto,) * 2)
    planned = job()._replace(unet=UNetConfig.from_json(UNET_XL))
    function, arguments = scoring_step(planned, mesh, 3)
    assert arguments[-1].pooled.shape == (3, 2, 10)
    lse, error, _ = jax.eval_shape(function, *arguments)
    assert error.shape == (6, 1, 2) and lse == {}


def test_the_prompts_gradient_is_all_that_crosses_devices(plan):
    found = traffic(plan.found.collectives)
    assert {one.kind for one in found} == {"all-reduce"}
    total, expected = sum(one.bytes for one in found), prompt_bytes(job())
    assert expected <= total <= expected + 64  # the loss


def test_arithmetic_of_a_chip_does_not_grow_with_the_slice(plan, slices):
    larger = plan_training(job(), slices["v5e:4x4"], 4)
    assert larger.found.flops == pytest.approx(plan.found.flops, rel=0.01)
    assert larger.pairs == 2 * plan.pairs == 2 * 8 * 4 * 2


def test_arithmetic_is_near_the_least(plan):
    assert 1.0 <= estimate(plan).overhead < 1.25  # tiny products are padded


def test_divided_weights_are_gathered_and_nothing_else_is(slices):
    planned = job(fsdp=4)
    plan = plan_training(planned, slices["v5e:2x4"], 4)
    whole = device_bytes(plan_weights(planned))
    assert plan.weights < 0.3 * whole
    kinds = {one.kind: one for one in traffic(plan.found.collectives)}
    # Once for the forward pass, once more for the gradient; activations stay where they are.
    assert 0.9 * whole < kinds["all-gather"].bytes < 2.1 * whole
    rest = set(kinds) - {"all-gather", "all-reduce"}  # of the first layers, which are no blocks
    assert sum(kinds[kind].bytes for kind in rest) < 0.02 * whole


def plan_weights(planned):
    from dsd_jax.models.unet import abstract_params

    cast = jax.eval_shape(lambda: jax.tree.map(jnp.zeros_like, abstract_params(planned.unet)))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, planned.dtype), cast)


def test_scoring_crosses_nothing(slices):
    plan = plan_scoring(job(), slices["v5e:2x4"], 4)
    assert plan.found.fits and plan.found.collectives == () and plan.pairs == 8 * 4 * 2


def test_hinge_spares_candidates_their_gradient():
    """Ten captions of which two have a gradient; alone they cost as much as two."""
    ten, two = (least_of_item(job(pictures=1, captions=count, loss="hinge")) for count in (10, 2))
    every = least_of_item(job(pictures=1, captions=10))
    assert two < ten < 0.75 * every


def test_devices_that_do_not_divide(slices):
    with pytest.raises(UserError, match="fsdp is 3, which does not divide the"):
        plan_training(job(fsdp=3), slices["v5e:2x4"], 1)


def test_both_steps_lower_for_gpus():
    mesh = AbstractMesh((8, 1), AXES, axis_types=(AxisType.Auto,) * 2)
    for step in (training_step, scoring_step):
        function, arguments = step(job(), mesh, 2)
        found = lower_for_cuda(function, *arguments)
        assert found.devices == 8 and found.custom_calls == ()
        assert len(found.inputs) == len(jax.tree.leaves(arguments))
