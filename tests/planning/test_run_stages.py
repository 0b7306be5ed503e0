"""The stages of a run, planned for a small network: which there are, and that they fit."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType

from dsd_jax.config.recipes import ClipRecipe, Recipe
from dsd_jax.diffusion.device_memory import Device, bytes_per_device
from dsd_jax.diffusion.noising import Schedule
from dsd_jax.distributed.sharding import AXES
from dsd_jax.errors import UserError
from dsd_jax.few_shot.train_step import item_bytes
from dsd_jax.matching.forward import OutputSpec
from dsd_jax.models.clip import CLIPConfig
from dsd_jax.models.text_encoder import TextConfig
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.models.vae import VAEConfig
from dsd_jax.planning.compilation import GIB, lower_for_cuda
from dsd_jax.planning.planned_run import PlannedRun
from dsd_jax.planning.run_stages import (
    arithmetic,
    largest_batch,
    mesh_on,
    plan_stage,
    stages_of,
)
from dsd_jax.planning.stage_programs import training_inputs
from dsd_jax.planning.topology import make_slice
from tests.few_shots import LORA
from tests.random_clip import CLIP
from tests.random_model import TEXT, TEXT_2, UNET, UNET_XL, VAE

SHAPE = UNET | {
    "block_out_channels": [32],
    "down_block_types": ["CrossAttnDownBlock2D"],
    "up_block_types": ["UpBlock2D"],
    "sample_size": 16,
    "cross_attention_dim": 12,
}
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"
CHANGES = {"methods": ("relative",), "denoise": 0.0, "timesteps": 1, "remat": "products"}
MESH = AbstractMesh((8, 1), AXES, axis_types=(AxisType.Auto,) * 2)


def recipe(**changes) -> Recipe:
    return Recipe(layers=(LAYER,), **LORA | CHANGES | changes)


def planned_run(unet=SHAPE, recipes=None, **changes) -> PlannedRun:
    fields = {
        "unet": UNetConfig.from_json(unet),
        "vae": VAEConfig.from_json(VAE),
        "texts": (TextConfig.from_json(TEXT),),
        "schedule": Schedule(),
        "dtype": jnp.bfloat16,
        "recipes": {"lora": recipe()} if recipes is None else recipes,
        "scored": OutputSpec((LAYER,)),
        "timesteps": 4,
    }
    return PlannedRun(**fields | changes)


def stage_named(run, name, **options):
    return next(stage for stage in stages_of(run, **options) if stage.name == name)


def program(run, name, memory=None, mesh=MESH, **options):
    return stage_named(run, name, **options).make(run, mesh, Device.of("tpu", memory))


def test_the_stages_of_a_run():
    def names(run):
        return [stage.name for stage in stages_of(run)]

    encoding = ["encode images", "encode captions"]
    weights = recipe(kinds=("weights",))
    assert names(planned_run()) == [*encoding, "shots", "train", "held-out", "score"]
    assert names(planned_run(recipes={})) == [*encoding, "score"]
    # The first recipe takes no steps, the second does.
    both = planned_run(recipes={"weights": weights, "authors": recipe()})
    assert names(both) == [*encoding, "shots", "train", "held-out", "score"]
    assert names(planned_run(recipes={"weights": weights})) == [*encoding, "shots", "score"]
    three = planned_run(
        recipes={"a": recipe(), "b": recipe(rank=4)},
        clip=CLIPConfig.from_json(CLIP),
        tune=ClipRecipe(),
    )
    several = ["train a", "held-out a", "train b", "held-out b"]
    assert names(three) == [*encoding, "shots", *several, "score", "tune"]


def test_rows_of_calls_are_those_of_the_memory_rule():
    """65,536 positions are 256 rows of 16 x 16; four of an item go with the empty caption."""
    call = program(planned_run(), "shots")
    assert call.size == "256 rows" and call.pairs == 8 * 128
    assert call.arguments[3].latents.shape == (8 * 32, 1, 16, 16, 4)
    few = program(planned_run(), "shots", memory=2**22)
    assert int(few.size.partition(" ")[0]) < 100


def test_sdxl_has_pooled_text():
    """The step that is run for it takes what its UNet asks for, and can be traced."""
    texts = TextConfig.from_json(TEXT), TextConfig.from_json(TEXT_2, projected=True)
    run = planned_run(UNET_XL, texts=texts, scored=OutputSpec(()))
    call = program(run, "score", mesh=AbstractMesh((1, 1), AXES, axis_types=MESH.axis_types))
    assert call.arguments[3].texts.pooled.shape[1:] == (2, 10)
    net, *arrays = call.arguments
    lse, error, _ = jax.eval_shape(lambda *x: call.function(net, *x), *arrays)
    assert error.shape[2] == 2 and lse == {}


def test_a_batch_that_does_not_fit_is_planned_in_parts():
    run = planned_run(recipes={"lora": recipe(batch=64)})
    whole = program(run, "train")
    assert whole.size == "8 items" and whole.pairs == 8 * 8 * 2
    size = item_bytes(*training_inputs(run, run.recipes["lora"], MESH, items=64))
    memory = int((2.5 * size + 2**20) / 0.85)
    assert program(run, "train", memory=memory).size == "8 items in 4 parts"
    assert program(run, "train", memory=memory, split=False).size == "8 items"


def test_arithmetic_is_near_the_least():
    for remat, most in (("nothing", 1.05), ("blocks", 1.6)):
        run = planned_run(recipes={"lora": recipe(remat=remat)})
        train = stage_named(run, "train")
        flops, least = arithmetic(run, train, program(run, "train"), Device.of("tpu", None))
        assert 1.0 <= flops / least < most


def test_hinge_spares_candidates_their_gradient():
    """Ten captions of which two have a gradient; alone they cost as much as two."""

    def least(captions, **changes):
        run = planned_run(images=1, captions=captions, recipes={"lora": recipe(**changes)})
        step = program(run, "train")
        return arithmetic(run, stage_named(run, "train"), step, Device.of("tpu", None))[1]

    ten, two, every = least(10, loss="hinge"), least(2, loss="hinge"), least(10)
    assert two < ten < 0.75 * every


def test_prompts_are_all_that_is_sent_unless_weights_are_divided():
    tree = program(planned_run(), "train").arguments[0]
    size = sum(4 * leaf.size for leaf in jax.tree.leaves(tree))
    assert program(planned_run(), "train").sent == size
    assert program(planned_run(), "score").sent == 0
    mesh = AbstractMesh((2, 4), AXES, axis_types=MESH.axis_types)
    divided = program(planned_run(fsdp=4), "train", mesh=mesh)
    whole = bytes_per_device(program(planned_run(), "train").params)
    assert divided.sent == 2 * whole + size
    assert bytes_per_device(divided.params) < 0.3 * whole


@pytest.fixture(scope="module")
def where():
    return make_slice("v5e:1x1")


def test_a_compiled_stage(where):
    run = planned_run(recipes={"lora": recipe(batch=4)})
    plan = plan_stage(run, where, stage_named(run, "held-out"))
    assert plan.fits and 0 < plan.beside < plan.weights < plan.needed < 2 * GIB
    assert plan.size == "256 rows" and plan.flops == plan.least > 0 == plan.sent


def test_devices_that_do_not_divide(where):
    with pytest.raises(UserError, match="fsdp is 3, which does not divide the"):
        mesh_on(where, 3)


def test_stages_lower_for_gpus():
    for name in ("train", "score"):
        stage = program(replace(planned_run(), timesteps=1), name)
        lowered = lower_for_cuda(stage.function, *stage.arguments)
        assert lowered.devices == 8 and lowered.custom_calls == ()


def compiler(peak_of, available=16.0):
    """Return a compiler that is a formula, by `peak_of(batch)` in GiB, and a list of its calls."""
    asked = []

    def compiled_peak(batch):
        asked.append(batch)
        peak = peak_of(batch)
        return None if peak > available else int(peak * GIB)

    return compiled_peak, asked


@pytest.mark.parametrize(
    "peak_of",
    [
        lambda batch: 2 + batch,
        lambda batch: 1 + 0.1 * batch,
        lambda batch: 1 + 0.01 * batch**2,
        lambda batch: 12 + 0.3 * batch**0.5,
        lambda batch: 3 + 1.5 * -(-batch // 8),  # rows are padded to eight
        lambda batch: 15.9 if batch == 1 else 17,
        lambda batch: 5,  # nothing is too much
        lambda batch: 17,  # everything is
    ],
)
@pytest.mark.parametrize("start", [1, 2, 3, 64, 5000])
@pytest.mark.parametrize("limit", [1, 2, 40, 100])
def test_finds_what_trying_all_finds(peak_of, start, limit):
    compiled_peak, asked = compiler(peak_of)
    batch = largest_batch(compiled_peak, 16 * GIB, start, limit)
    assert batch == max((b for b in range(1, limit + 1) if peak_of(b) <= 16), default=0)
    assert len(asked) == len(set(asked)) and all(1 <= tried <= limit for tried in asked)
    if batch:
        assert batch in asked


def test_few_compilations_where_memory_is_a_line():
    compiled_peak, asked = compiler(lambda batch: 2 + 1.03 * batch)
    assert largest_batch(compiled_peak, 16 * GIB) == 13
    assert asked == [1, 2, 8, 13, 14]


def test_few_compilations_where_it_is_not():
    compiled_peak, asked = compiler(lambda batch: 1 + 0.001 * batch**2)
    assert largest_batch(compiled_peak, 16 * GIB) == 122
    assert len(asked) <= 12
