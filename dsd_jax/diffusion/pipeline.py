"""A loaded Stable Diffusion: configs and params of its networks, tokenizers and schedule."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dsd_jax.diffusion.device_memory import TEXT_ROWS, image_rows
from dsd_jax.diffusion.noising import Schedule
from dsd_jax.diffusion.tokenization import check_texts, tokenize, tokenizer_digest
from dsd_jax.distributed.sharding import mesh_of, shard_rows
from dsd_jax.io.images import ImageInput, read_images
from dsd_jax.models.text_encoder import CLIPTextEncoder, SDXLTextEncoder, TextConfig
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.models.vae import AutoencoderKL, VAEConfig

Array = jax.Array | np.ndarray


class EncodedCaptions(NamedTuple):
    """Text states of captions; the leading axes are the caller's.

    Attributes:
        states: (..., L, D) float32, of every token, for cross-attention.
        pooled: (..., A) float32, of the whole caption, which SDXL adds to its time embedding; A is
            0 in other families.
    """

    states: Array
    pooled: Array

    def map(self, function: Callable[[Any], Any]) -> "EncodedCaptions":
        """Return `function` of both arrays."""
        return EncodedCaptions(function(self.states), function(self.pooled))


def without_pooled(states: Array) -> EncodedCaptions:
    """Return captions of a family that has token states alone."""
    return EncodedCaptions(states, np.zeros((*states.shape[:-2], 0), np.float32))


@dataclass(frozen=True, repr=False)  # of its params it would be a million letters
class Model:
    """A frozen text-to-image model, made by `dsd_jax.load`.

    Attributes:
        name: what it was loaded from.
        params: {"unet", "vae", "text"}, each the diffusers-Flax (transformers-Flax) tree; of SDXL
            also {"text_2"}.
        tokenizer: a `transformers.CLIPTokenizer`.
        image_size: side of the square images it was made for, in pixels.
        text_2, tokenizer_2: SDXL's second text encoder; None elsewhere.
        zero_empty: whether the text states of "" are zeros instead of the encoders' output, as SDXL
            was trained: `force_zeros_for_empty_prompt` in its model_index.json.
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

    def __repr__(self) -> str:
        count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        devices = self.mesh.devices.ravel()
        kind = devices[0].device_kind
        where = kind if len(devices) == 1 else f"{len(devices)} x {kind}"
        return (
            f"<Model {self.name}: {self.family}, {rounded_count(count)} parameters, images of "
            f"{self.image_size}x{self.image_size}, {self.dtype.name} on {where}>"
        )

    @property
    def family(self) -> str:
        """The family of models that it is of, by its parts: their files do not say."""
        if self.text_2 is not None:
            return "Stable Diffusion XL"
        width = self.text.hidden_size  # of CLIP ViT-L, and of OpenCLIP ViT-H
        return "Stable Diffusion" + {768: " 1.x", 1024: " 2.x"}.get(width, "")

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the params, in which matrix products run."""
        return jax.tree.leaves(self.params["unet"])[0].dtype

    @cached_property
    def weights_digest(self) -> str:
        """The `weights_digest` of the params, computed once: it copies them to the host."""
        from dsd_jax.models.params import weights_digest  # whose package loads models

        return weights_digest(self.params)

    @property
    def mesh(self) -> Mesh:
        """The mesh of this host's devices, over which the params are placed."""
        return mesh_of(self.params["unet"])

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """The shape (h, w, D) of an image's latent."""
        side = self.image_size // self.vae.downscale
        return side, side, self.vae.latent_channels

    def encode_images(
        self, images: Sequence[ImageInput] | np.ndarray
    ) -> tuple[jax.Array, jax.Array]:
        """Return the VAE's posterior of each image.

        Args:
            images: paths, PIL images or uint8 arrays (H, W, 3); resized to `image_size`.

        Returns:
            Mean and log variance of the unscaled latents, each (I, h, w, D) float32.

        Raises:
            UserError: an image cannot be read.
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

    def _chunks(self, rows: np.ndarray, size: int) -> Iterator[Array]:
        """Yield rows in chunks of one shape, divided over the devices, `size` for each of them."""
        mesh = self.mesh
        return (shard_rows(mesh, x) for x in padded_chunks(rows, size * mesh.size))

    def latents(self, images: Sequence[ImageInput] | np.ndarray) -> jax.Array:
        """Return scaled latents at the posterior's mean: (I, h, w, D) float32."""
        return self.vae.scaling_factor * self.encode_images(images)[0]

    def encode_texts(self, captions: Sequence[str]) -> jax.Array:
        """Return the text states of captions, "" included: (C, L, D) float32, L = 77.

        Padding tokens are included, as everywhere in Stable Diffusion. A caption with more than L
        tokens is cut, with a warning that shows what was lost. The states of SDXL's two encoders
        are concatenated along D.
        """
        return jnp.asarray(self.encode_captions(captions).states)

    def encode_captions(self, captions: Sequence[str]) -> EncodedCaptions:
        """Return the text states of captions, as `encode_texts`, and the pooled ones.

        With `zero_empty`, both are zeros for "", as in diffusers for a negative prompt that is not
        given. Keys of cross-attention are then zero: the empty caption's score is log L in every
        layer, and only its error depends on the image.
        """
        captions = check_texts(captions)
        encoders = [("text", self.text, self.tokenizer)]
        if self.text_2 is not None:
            encoders.append(("text_2", self.text_2, self.tokenizer_2))
        # On one line for both tokenizers, so that the same warning is shown once.
        ids = [tokenize(tokenizer, captions) for _, _, tokenizer in encoders]
        parts = [
            self._encode(key, config, rows)
            for (key, config, _), rows in zip(encoders, ids, strict=True)
        ]
        texts = EncodedCaptions(
            jnp.concatenate([part.states for part in parts], -1), parts[-1].pooled
        )
        if self.zero_empty and "" in captions:
            has_text = np.array([caption != "" for caption in captions])
            texts = texts.map(lambda x: x * has_text.reshape(-1, *[1] * (x.ndim - 1)))
        return texts

    def _encode(self, key: str, config: TextConfig, ids: np.ndarray) -> EncodedCaptions:
        xl = self.text_2 is not None
        encode = partial(text_states, config, xl, self.dtype, self.params[key])
        chunks = [encode(chunk) for chunk in self._chunks(ids, TEXT_ROWS)]
        return jax.tree.map(lambda *parts: jnp.concatenate(parts)[: len(ids)], *chunks)

    def image_identity(self) -> tuple[Any, str]:
        """Return the params and, as a string, all else that image encodings depend on."""
        return self.params["vae"], f"{self.image_size} {self.vae!r}"

    def text_identity(self) -> tuple[Any, str]:
        """Return the params and, as a string, all else that text states depend on."""
        weights = {key: self.params[key] for key in ("text", "text_2") if key in self.params}
        tokenizers = [tokenizer_digest(part) for part in (self.tokenizer, self.tokenizer_2) if part]
        return weights, f"{self.text!r} {self.text_2!r} {self.zero_empty} {tokenizers}"


def rounded_count(count: int) -> str:
    """Return a number of parameters in words: 7.8 M, 866 M, 2.6 B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.{1 if count < 100 * size else 0}f} {letter}"
    return str(count)


def padded_chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut into chunks of `size` rows, the last padded with its last row: one compilation.

    Fewer rows than `size` make one chunk of the next power of two, so that one row stays cheap.
    """
    size = min(size, 1 << max(0, len(rows) - 1).bit_length())
    missing = -len(rows) % size
    rows = np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
    return np.split(rows, len(rows) // size)


@partial(jax.jit, static_argnums=(0, 1))
def vae_posterior(config: VAEConfig, dtype: Any, params: Any, pixels: Array) -> Any:
    """Return mean and log variance of the VAE's posterior of uint8 images (I, H, W, 3)."""
    pixels = pixels.astype(jnp.float32) / 127.5 - 1.0
    return AutoencoderKL(config, dtype).apply({"params": params}, pixels, method="encode")


@partial(jax.jit, static_argnums=(0, 1, 2))
def text_states(
    config: TextConfig, xl: bool, dtype: Any, params: Any, ids: Array
) -> EncodedCaptions:
    """Return the text states of token ids (C, L); `xl`: of one of SDXL's two encoders."""
    encoder = (SDXLTextEncoder if xl else CLIPTextEncoder)(config, dtype)
    encoded: Any = encoder.apply({"params": params}, ids)
    return EncodedCaptions(*encoded) if xl else without_pooled(encoded)
