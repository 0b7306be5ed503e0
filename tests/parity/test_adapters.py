"""LoRA that goes to PyTorch diffusers, and LoRA that comes from it: the UNet answers the same."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

import dsd_jax
from dsd_jax.convert import main
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.prompts.prompt_files import read_prompts, write_prompts
from dsd_jax.prompts.prompt_params import by_layer, init_lora

TOLERANCE = 1e-4
RANK = 3
SIZE = 0.15  # of the updates' numbers: effects far above the tolerance, no chaos
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


@pytest.fixture(scope="module", params=["tiny-sd15", "tiny-sd21"])
def golden(request, golden_folder, quickly_compiled):
    """Our model and inputs for its UNet; theirs is loaded anew, since adapters change it."""
    folder, rng = golden_folder(request.param), np.random.default_rng(0)
    model = dsd_jax.load(folder)
    network = UNet2DCondition(model.unet)
    width = model.unet.cross_attention_dim
    return SimpleNamespace(
        folder=folder,
        model=model,
        apply=jax.jit(lambda params, *rest: network.apply({"params": params}, *rest)[0]),
        latents=rng.normal(size=(2, 16, 16, 4)).astype(np.float32),
        states=rng.normal(size=(2, 77, width)).astype(np.float32),
        timesteps=np.array([14, 801]),
    )


@pytest.fixture
def unet(golden):
    return UNet2DConditionModel.from_pretrained(golden.folder, subfolder="unet").float().eval()


def ours(golden, prompts):
    """Our UNet's prediction under prompts, (2, 16, 16, 4)."""
    inputs = golden.latents, golden.timesteps, golden.states[:, None]
    layers = by_layer({"lora": filled_up(golden, prompts.get("lora", {}))})
    return np.asarray(golden.apply(golden.model.params["unet"], *inputs, layers))


def filled_up(golden, lora):
    """The same updates with zeros up to rank 8 and everywhere: all share one compilation."""
    full = jax.tree.map(np.zeros_like, init_lora(golden.model.unet, jax.random.key(0), 8))
    for path, projections in lora.items():
        for name, update in projections.items():
            rank = update["down"].shape[1]
            full[path][name]["down"][:, :rank] = update["down"]
            full[path][name]["up"][:rank] = update["up"]
    return full


def theirs(golden, unet):
    """Theirs, with whatever adapter it has."""
    latents = torch.from_numpy(np.moveaxis(golden.latents, -1, 1).copy())
    with torch.no_grad():
        out = unet(latents, torch.from_numpy(golden.timesteps), torch.from_numpy(golden.states))
    return np.moveaxis(out.sample.numpy(), 1, -1)


def assert_same(golden, prompts, unet):
    """Equal predictions, and others than without the adapter."""
    ours_, plain = ours(golden, prompts), ours(golden, {})
    np.testing.assert_allclose(ours_, theirs(golden, unet), rtol=0, atol=TOLERANCE)
    assert np.abs(ours_ - plain).max() > 0.01


def trained_lora(model, layers="attn", rank=RANK):
    """LoRA with effects that no tolerance hides."""
    rng = np.random.default_rng(1)
    lora = init_lora(model.unet, jax.random.key(0), rank, layers)
    return jax.tree.map(lambda x: (SIZE * rng.normal(size=x.shape)).astype(np.float32), lora)


def trained_unet(unet, **config):
    """Their UNet with an adapter that has learned something."""
    torch.manual_seed(0)
    options = {"r": RANK, "lora_alpha": 2 * RANK, "target_modules": ATTENTION}
    unet.add_adapter(LoraConfig(**options | config))
    randomise(unet)
    return unet


def randomise(network):
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.copy_(SIZE * torch.randn_like(parameter))


def read(golden, source, tmp_path):
    """What our command makes of it, checked against the model."""
    target = tmp_path / "prompts"
    main([str(source), str(target), f"--weights={golden.folder}"])
    return read_prompts(target, golden.model.unet)


def load_in_pipeline(golden, unet, file):
    """As a user does it."""
    pipeline = StableDiffusionPipeline.from_pretrained(golden.folder, unet=unet)
    pipeline.load_lora_weights(file, local_files_only=True)


def test_diffusers_loads_our_prompts(golden, unet, tmp_path):
    lora = trained_lora(golden.model) | trained_lora(golden.model, "attn2", rank=5)
    write_prompts(tmp_path / "ours", {"lora": lora}, {})
    main([str(tmp_path / "ours"), str(tmp_path / "out")])
    load_in_pipeline(golden, unet, tmp_path / "out")
    assert_same(golden, {"lora": lora}, unet)


@pytest.mark.parametrize("golden", ["tiny-sd21"], indirect=True)
def test_a_unet_alone_loads_our_prompts(golden, unet, tmp_path):
    lora = trained_lora(golden.model, "attn2")
    write_prompts(tmp_path / "ours", {"lora": lora}, {})
    main([str(tmp_path / "ours"), str(tmp_path / "out")])
    unet.load_lora_adapter(tmp_path / "out", prefix="unet", use_safetensors=True)
    assert_same(golden, {"lora": lora}, unet)


@pytest.mark.parametrize("golden", ["tiny-sd21"], indirect=True)
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True, "r": 4, "target_modules": ["to_q", "to_v"]},
        {
            "rank_pattern": {"attn2.to_k": 5, "down_blocks.*to_v": 2},
            "alpha_pattern": {"attn2.to_k": 7, "mid_block.*": 1},
        },
    ],
)
def test_we_read_what_a_unet_saves(golden, unet, tmp_path, config):
    trained_unet(unet, **config).save_lora_adapter(tmp_path / "theirs")
    prompts = read(golden, tmp_path / "theirs", tmp_path)
    assert_same(golden, prompts, unet)


@pytest.mark.parametrize("golden", ["tiny-sd21"], indirect=True)
@pytest.mark.parametrize("old", [False, True])
def test_we_read_what_a_pipeline_saves(golden, unet, tmp_path, old):
    """As diffusers' training scripts do it: with metadata today; older ones had other names."""
    state = get_peft_model_state_dict(trained_unet(unet, lora_alpha=RANK if old else 2 * RANK))
    metadata = None if old else unet.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "theirs",
        unet_lora_layers=convert_state_dict_to_diffusers(state) if old else state,
        unet_lora_adapter_metadata=metadata,
    )
    prompts = read(golden, tmp_path / "theirs", tmp_path)
    assert_same(golden, prompts, unet)


@pytest.mark.parametrize("golden", ["tiny-sd21"], indirect=True)
def test_we_read_what_peft_saves(golden, unet, tmp_path):
    """A folder with adapter_model.safetensors and adapter_config.json."""
    config = LoraConfig(r=RANK, lora_alpha=7, target_modules=ATTENTION)
    whole = get_peft_model(unet, config)
    randomise(whole)
    whole.save_pretrained(tmp_path / "theirs")
    prompts = read(golden, tmp_path / "theirs", tmp_path)
    assert_same(golden, prompts, whole)


@pytest.mark.parametrize("golden", ["tiny-sd21"], indirect=True)
def test_we_read_what_kohya_saves(golden, unet, tmp_path):
    """diffusers reads the same file."""
    tensors = {}
    for path, projections in trained_lora(golden.model).items():
        for projection, update in projections.items():
            ending = "_0" if projection == "to_out" else ""
            module = f"lora_unet_{path.replace('.', '_')}_{projection}{ending}"
            tensors |= {
                f"{module}.lora_down.weight": torch.tensor(update["down"].T).contiguous(),
                f"{module}.lora_up.weight": torch.tensor(update["up"].T).contiguous(),
                f"{module}.alpha": torch.tensor(2.0),
            }
    save_file(tensors, tmp_path / "kohya.safetensors")
    prompts = read(golden, tmp_path / "kohya.safetensors", tmp_path)
    load_in_pipeline(golden, unet, tmp_path / "kohya.safetensors")
    assert_same(golden, prompts, unet)


def test_the_authors_adapter_in_diffusers(golden, unet, tmp_path):
    """Which cannot read it itself any more; that ours is right is known from their own scores."""
    adapter = golden.folder / "lora"
    main([str(adapter), str(tmp_path / "out"), "--to=diffusers"])
    load_in_pipeline(golden, unet, tmp_path / "out")
    assert_same(golden, read(golden, adapter, tmp_path), unet)
