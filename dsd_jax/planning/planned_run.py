"""A config as it is planned: the networks' shapes and the recipes, but no weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsd_jax.clip import clip_files
from dsd_jax.clip.clip_files import COMPONENT
from dsd_jax.config import score_spec
from dsd_jax.config.recipes import ClipRecipe, Recipe
from dsd_jax.config.run_config import RunConfig
from dsd_jax.config.score_spec import parse_all
from dsd_jax.diffusion.noising import Schedule
from dsd_jax.errors import UserError
from dsd_jax.matching import score_functions
from dsd_jax.matching.forward import OutputSpec
from dsd_jax.models.clip import CLIPConfig
from dsd_jax.models.components import TEXT, TEXT_2, UNET, VAE
from dsd_jax.models.published_networks import CLIPS, ITEM, ITEMS, SCHEDULE, TEXTS, UNETS
from dsd_jax.models.published_networks import VAE as VAES
from dsd_jax.models.text_encoder import TextConfig
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.models.vae import VAEConfig
from dsd_jax.weights.component_files import read_config
from dsd_jax.weights.model_folder import find, read_schedule
from dsd_jax.weights.model_loading import float_type

_GRADIENT_KINDS = {"lora", "tokens"}  # of prompts, trained with gradients of the network


@dataclass(frozen=True)
class PlannedRun:
    """A run to be planned.

    Attributes:
        unet, vae, texts: the networks of the model.
        schedule: of the UNet's noise.
        dtype: of the weights and matrix products.
        recipes: {label: how prompts are learned}, all of the config's; some may take no
            gradients of the network.
        scored: the outputs of the UNet that the config's methods read.
        timesteps: noise levels per score.
        noises: under which the shots are scored.
        images, captions: of an item.
        fsdp: devices that share one copy of the weights.
        clip, tune: the CLIP that is compared with, and how it is fine-tuned; None without one.
    """

    unet: UNetConfig
    vae: VAEConfig
    texts: tuple[TextConfig, ...]
    schedule: Schedule
    dtype: Any
    recipes: Mapping[str, Recipe]
    scored: OutputSpec
    timesteps: int
    noises: int = 1
    images: int = 2
    captions: int = 1
    fsdp: int = 1
    clip: CLIPConfig | None = None
    tune: ClipRecipe | None = None

    @property
    def trained(self) -> dict[str, Recipe]:
        """The recipes that take gradient steps."""
        return {
            label: recipe
            for label, recipe in self.recipes.items()
            if _GRADIENT_KINDS & set(recipe.kinds)
        }

    @property
    def latent(self) -> tuple[int, int, int]:
        """The shape of an image's latent: (h, w, channels)."""
        return self.unet.sample_size, self.unet.sample_size, self.unet.in_channels

    @property
    def image_size(self) -> int:
        """The pixels of an image's side."""
        return self.unet.sample_size * self.vae.downscale


def read_planned_run(config: RunConfig, name: str | None = None) -> PlannedRun:
    """Return the config's recipes, or `name` alone, on the networks of its weights.

    Nothing is downloaded for the models in `published_networks`, unless a folder has that name.

    Raises:
        UserError: a field of the config is none that we know, or the recipe `name` takes no steps.
    """
    labels = [name] if name else list(config.recipes)
    for label in labels:
        if label not in config.learn:
            known = ", ".join(config.learn)
            raise UserError(f"recipe '{label}' is unknown; expected one of {known}.")
    unet, vae, texts, schedule = _networks(config.weights)
    layers = score_functions.chosen_layers(unet, config.layers or None)
    recipes = {label: config.learn[label].on_layers(layers) for label in labels}
    if name and not _GRADIENT_KINDS & set(recipes[name].kinds):
        raise UserError(
            f"recipe '{name}' learns {', '.join(recipes[name].kinds)} without gradients of the "
            "network; plan one that learns lora or tokens."
        )
    scores = parse_all(config.methods, config.timesteps)
    scored = score_functions.union(
        unet,
        [score_functions.required_outputs(unet, score.method, layers) for score in scores],
    )
    item = ITEMS.get(config.data.name, ITEM)
    return PlannedRun(
        unet=unet,
        vae=vae,
        texts=texts,
        schedule=schedule,
        dtype=float_type(config.dtype),
        recipes=recipes,
        scored=scored,
        timesteps=len(score_spec.timesteps(config.timesteps)),
        noises=config.noises,
        images=item.images,
        captions=item.captions,
        fsdp=config.fsdp,
        clip=_clip(config.clip) if config.clip else None,
        tune=config.tune if config.clip else None,
    )


def _networks(weights: str) -> tuple[UNetConfig, VAEConfig, tuple[TextConfig, ...], Schedule]:
    if weights in UNETS and not Path(weights).is_dir():
        unet = UNetConfig.from_json(UNETS[weights])
        texts = tuple(
            TextConfig.from_json(json, projected=number > 0)
            for number, json in enumerate(TEXTS[unet.cross_attention_dim])
        )
        return unet, VAEConfig.from_json(VAES), texts, Schedule.from_json(SCHEDULE)
    folder = find(weights)
    parts = [TEXT, TEXT_2] if (folder / TEXT_2.folder).is_dir() else [TEXT]
    texts = tuple(read_config(folder, part) for part in parts)
    return read_config(folder, UNET), read_config(folder, VAE), texts, read_schedule(folder)


def _clip(where: str) -> CLIPConfig:
    if where in CLIPS and not Path(where).is_dir():
        return CLIPConfig.from_json(CLIPS[where])
    return read_config(clip_files.find_clip(where), COMPONENT)
