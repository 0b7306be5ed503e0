"""A loaded Stable Diffusion: its networks' configs and weights, tokenizers and schedule."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dsd_jax.diffusion.device_memory import TEXT_ROWS, image_rows
from dsd_jax.diffusion.schedule import Schedule
from dsd_jax.diffusion.tokenization import check_texts, tokenize, tokenizer_digest
from dsd_jax.distributed.sharding import mesh_of, shard_rows
from dsd_jax.io.images import ImageInput, read_images
from dsd_jax.models.text_encoder import CLIPTextEncoder, SDXLTextEncoder, TextConfig
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.models.vae import AutoencoderKL, VAEConfig


class EncodedCaptions(NamedTuple):
    """Encoded captions; the leading axes are the caller's.

    states: (..., L, K) float32, of every token: what cross-attention reads.
    pooled: (..., A) float32, of the whole caption, which SDXL adds to its time embedding; A is 0 in
        families that have no such thing.
    """

    states: jax.Array | np.ndarray
    pooled: jax.Array | np.ndarray

    def map(self, function) -> "EncodedCaptions":
        """`function` of both arrays."""
        return EncodedCaptions(function(self.states), function(self.pooled))


def without_pooled(states: jax.Array | np.ndarray) -> EncodedCaptions:
    """EncodedCaptions of a family that has states alone."""
    return EncodedCaptions(states, np.zeros((*states.shape[:-2], 0), np.float32))


@dataclass(frozen=True)
class Model:
    """A frozen text-to-image model, made by `dsd_jax.load`.

    Attributes:
        name: what it was loaded from.
        params: {"unet", "vae", "text"}, each the diffusers-Flax (transformers-Flax) tree; of SDXL
            also {"text_2"}.
        tokenizer: a `transformers.CLIPTokenizer`.
        image_size: side of the square pictures it was made for, in pixels.
        text_2, tokenizer_2: SDXL's second text encoder; None elsewhere.
        zero_empty: whether the empty caption is all zeros instead of what the encoders say of "",
            as SDXL was trained: `force_zeros_for_empty_prompt` of its model_index.json.
    """

    name: str
    unet: UNetConfig
    vae: VAEConfig
    text: TextConfig
    schedule: Schedule
    params: dict[str, Any]
    tokenizer: Any
    image_size: int
    text_2: TextConfig | None = None
    tokenizer_2: Any = None
    zero_empty: bool = False

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the weights, in which matrix products run."""
        return jax.tree.leaves(self.params["unet"])[0].dtype

    @cached_property
    def weights_digest(self) -> str:
        """`weights.weights_digest` of the params, computed once: it copies them to the host."""
        from dsd_jax.models.params import weights_digest  # whose package loads models

        return weights_digest(self.params)

    @property
    def mesh(self) -> Mesh:
        """This host's devices, over which the weights lie."""
        return mesh_of(self.params["unet"])

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(h, w, channels) of one picture's latent."""
        side = self.image_size // self.vae.downscale
        return side, side, self.vae.latent_channels

    def encode_images(self, images: Sequence[ImageInput]) -> tuple[jax.Array, jax.Array]:
        """The VAE's posterior of each picture.

        Args:
            images: paths, PIL images or uint8 arrays (H, W, 3); resized to `image_size`.

        Returns:
            mean and log variance of the unscaled latents, each (I, h, w, channels) float32.

        Raises:
            UserError: a picture cannot be read.
        """
        pixels = read_images(images, self.image_size)
        rows = image_rows(self.image_size)
        overflows = self.vae.force_upcast and self.dtype == jnp.float16
        dtype = jnp.float32 if overflows else self.dtype
        encode = partial(vae_posterior, self.vae, dtype, self.params["vae"])
        chunks = [encode(chunk) for chunk in self._chunks(pixels, rows)]
        mean, logvar = (
            jnp.concatenate(parts)[: len(pixels)] for parts in zip(*chunks, strict=True)
        )
        return mean, logvar

    def _chunks(self, rows: np.ndarray, size: int) -> Iterator[jax.Array]:
        """Rows in pieces of one shape, `size` for every device, each device with its part."""
        mesh = self.mesh
        return (shard_rows(mesh, x) for x in padded_chunks(rows, size * mesh.size))

    def latents(self, images: Sequence[ImageInput]) -> jax.Array:
        """Scaled latents at the posterior's mean: (I, h, w, channels) float32."""
        return self.vae.scaling_factor * self.encode_images(images)[0]

    def encode_texts(self, captions: Sequence[str]) -> jax.Array:
        """Text states of each caption, "" included: (C, L, K) float32, L = 77 in all families.

        Padding tokens take part, as everywhere in Stable Diffusion. A caption with more than L
        tokens is cut, with a warning that shows what was lost. SDXL's two encoders stand side by
        side along K.
        """
        return self.encode_captions(captions).states

    def encode_captions(self, captions: Sequence[str]) -> EncodedCaptions:
        """As `encode_texts`, with what else the UNet reads of each caption.

        With `zero_empty`, "" is zeros, pooled too: what diffusers takes for a negative prompt that
        is not given. Cross-attention then has zeros for keys, so that the empty caption's score is
        log L in every layer, and only its error depends on the picture.
        """
        captions = check_texts(captions)
        towers = [("text", self.text, self.tokenizer)]
        if self.text_2 is not None:
            towers.append(("text_2", self.text_2, self.tokenizer_2))
        # From one line for both tokenizers, so that the same warning is shown once.
        ids = [tokenize(tokenizer, captions) for _, _, tokenizer in towers]
        parts = [
            self._encode(key, config, rows)
            for (key, config, _), rows in zip(towers, ids, strict=True)
        ]
        texts = EncodedCaptions(
            jnp.concatenate([part.states for part in parts], -1), parts[-1].pooled
        )
        if self.zero_empty and "" in captions:
            said = np.array([caption != "" for caption in captions])
            texts = texts.map(lambda x: x * said.reshape(-1, *[1] * (x.ndim - 1)))
        return texts

    def _encode(self, key: str, config: TextConfig, ids: np.ndarray) -> EncodedCaptions:
        xl = self.text_2 is not None
        encode = partial(text_states, config, xl, self.dtype, self.params[key])
        chunks = [encode(chunk) for chunk in self._chunks(ids, TEXT_ROWS)]
        return jax.tree.map(lambda *parts: jnp.concatenate(parts)[: len(ids)], *chunks)

    def image_identity(self) -> tuple[Any, str]:
        """Return the weights, and in a string all else, that decide what images are encoded to."""
        return self.params["vae"], f"{self.image_size} {self.vae!r}"

    def text_identity(self) -> tuple[Any, str]:
        """Return the weights, and in a string all else, that decide what texts are encoded to."""
        weights = {key: self.params[key] for key in ("text", "text_2") if key in self.params}
        tokenizers = [tokenizer_digest(part) for part in (self.tokenizer, self.tokenizer_2) if part]
        return weights, f"{self.text!r} {self.text_2!r} {self.zero_empty} {tokenizers}"


def padded_chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut into pieces of `size` rows, the last filled up by repeating: one shape, one compilation.

    Fewer rows than `size` make one piece of the next power of two, so that one row stays cheap.
    """
    size = min(size, 1 << max(0, len(rows) - 1).bit_length())
    missing = -len(rows) % size
    rows = np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
    return np.split(rows, len(rows) // size)


@partial(jax.jit, static_argnums=(0, 1))
def vae_posterior(config: VAEConfig, dtype: Any, params: Any, pixels: jax.Array):
    """The VAE's posterior of uint8 pictures (I, H, W, 3): mean and log variance."""
    pixels = pixels.astype(jnp.float32) / 127.5 - 1.0
    return AutoencoderKL(config, dtype).apply({"params": params}, pixels, method="encode")


@partial(jax.jit, static_argnums=(0, 1, 2))
def text_states(
    config: TextConfig, xl: bool, dtype: Any, params: Any, ids: jax.Array
) -> EncodedCaptions:
    """What a text encoder says of token ids (C, L); `xl`: as one of SDXL's two."""
    if xl:
        return EncodedCaptions(*SDXLTextEncoder(config, dtype).apply({"params": params}, ids))
    return without_pooled(CLIPTextEncoder(config, dtype).apply({"params": params}, ids))
