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
from dsd_jax.few_shot.prompt_training import outputs_of_losses
from dsd_jax.few_shot.train_step import TrainInputs, TrainStepConfig, item_bytes
from dsd_jax.matching.forward import OutputSpec
from dsd_jax.models.clip import CLIPConfig
from dsd_jax.models.text_encoder import TextConfig
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.models.vae import VAEConfig
from dsd_jax.planning.compilation import GIB
from dsd_jax.planning.gpu_lowering import lower_for_cuda
from dsd_jax.planning.inference_stages import network
from dsd_jax.planning.plan_job import Job
from dsd_jax.planning.topology import make_slice
from dsd_jax.planning.training_stages import arithmetic, mesh_on, plan_stage, stages_of
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


def job(unet=SHAPE, recipes=None, **changes) -> Job:
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
    return Job(**fields | changes)


def stage(job, name, **options):
    return next(one for one in stages_of(job, **options) if one.name == name)


def made(job, name, memory=None, mesh=MESH, **options):
    return stage(job, name, **options).make(job, mesh, Device.of("tpu", memory))


def test_the_stages_of_a_run():
    def names(planned):
        return [one.name for one in stages_of(planned)]

    encoding = ["encode pictures", "encode captions"]
    weights = recipe(kinds=("weights",))
    assert names(job()) == [*encoding, "shots", "train", "held-out", "score"]
    assert names(job(recipes={})) == [*encoding, "score"]
    # The first recipe takes no steps, the second does.
    both = job(recipes={"weights": weights, "authors": recipe()})
    assert names(both) == [*encoding, "shots", "train", "held-out", "score"]
    assert names(job(recipes={"weights": weights})) == [*encoding, "shots", "score"]
    three = job(
        recipes={"a": recipe(), "b": recipe(rank=4)},
        clip=CLIPConfig.from_json(CLIP),
        tune=ClipRecipe(),
    )
    several = ["train a", "held-out a", "train b", "held-out b"]
    assert names(three) == [*encoding, "shots", *several, "score", "tune"]


def test_rows_of_calls_are_those_of_the_memory_rule():
    """65,536 positions are 256 rows of 16 x 16; four of an item go with the empty caption."""
    found = made(job(), "shots")
    assert found.size == "256 rows" and found.pairs == 8 * 128
    assert found.arguments[3].latents.shape == (8 * 32, 1, 16, 16, 4)
    few = made(job(), "shots", memory=2**22)
    assert int(few.size.partition(" ")[0]) < 100


def test_sdxl_has_pooled_text():
    """The step that is planned for it takes what its UNet asks for, and can be traced."""
    texts = TextConfig.from_json(TEXT), TextConfig.from_json(TEXT_2, projected=True)
    planned = job(UNET_XL, texts=texts, scored=OutputSpec(()))
    found = made(planned, "score", mesh=AbstractMesh((1, 1), AXES, axis_types=MESH.axis_types))
    assert found.arguments[3].texts.pooled.shape[1:] == (2, 10)
    net, *arrays = found.arguments
    lse, error, _ = jax.eval_shape(lambda *x: found.function(net, *x), *arrays)
    assert error.shape[2] == 2 and lse == {}


def test_a_batch_that_does_not_fit_is_planned_in_parts():
    planned = job(recipes={"lora": recipe(batch=64)})
    whole = made(planned, "train")
    assert whole.size == "8 items" and whole.pairs == 8 * 8 * 2
    prompts, _, *others = whole.arguments
    inputs, settings = TrainInputs(prompts, *others), planned.recipes["lora"]
    wanted = outputs_of_losses(planned.unet, settings)
    step = TrainStepConfig(network(planned, wanted, "products"), settings, MESH)
    memory = int((2.5 * item_bytes(step, inputs) + 2**20) / 0.85)
    assert made(planned, "train", memory=memory).size == "8 items in 4 parts"
    assert made(planned, "train", memory=memory, split=False).size == "8 items"


def test_arithmetic_is_near_the_least():
    for remat, most in (("nothing", 1.05), ("blocks", 1.6)):
        planned = job(recipes={"lora": recipe(remat=remat)})
        train = stage(planned, "train")
        flops, least = arithmetic(planned, train, made(planned, "train"), Device.of("tpu", None))
        assert 1.0 <= flops / least < most


def test_hinge_spares_candidates_their_gradient():
    """Ten captions of which two have a gradient; alone they cost as much as two."""

    def least(captions, **changes):
        planned = job(pictures=1, captions=captions, recipes={"lora": recipe(**changes)})
        program = made(planned, "train")
        return arithmetic(planned, stage(planned, "train"), program, Device.of("tpu", None))[1]

    ten, two, every = least(10, loss="hinge"), least(2, loss="hinge"), least(10)
    assert two < ten < 0.75 * every


def test_prompts_are_all_that_is_sent_unless_weights_are_divided():
    tree = made(job(), "train").arguments[0]
    size = sum(4 * leaf.size for leaf in jax.tree.leaves(tree))
    assert made(job(), "train").sent == size
    assert made(job(), "score").sent == 0
    mesh = AbstractMesh((2, 4), AXES, axis_types=MESH.axis_types)
    divided = made(job(fsdp=4), "train", mesh=mesh)
    whole = bytes_per_device(made(job(), "train").weights)
    assert divided.sent == 2 * whole + size
    assert bytes_per_device(divided.weights) < 0.3 * whole


@pytest.fixture(scope="module")
def where():
    return make_slice("v5e:1x1")


def test_a_compiled_stage(where):
    planned = job(recipes={"lora": recipe(batch=4)})
    plan = plan_stage(planned, where, stage(planned, "held-out"))
    assert plan.fits and 0 < plan.beside < plan.weights < plan.needed < 2 * GIB
    assert plan.size == "256 rows" and plan.flops == plan.least > 0 == plan.sent


def test_devices_that_do_not_divide(where):
    with pytest.raises(UserError, match="fsdp is 3, which does not divide the"):
        mesh_on(where, 3)


def test_stages_lower_for_gpus():
    for name in ("train", "score"):
        program = made(replace(job(), timesteps=1), name)
        found = lower_for_cuda(program.function, *program.arguments)
        assert found.devices == 8 and found.custom_calls == ()
