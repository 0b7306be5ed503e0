"""A loaded CLIP: it turns images and captions into unit vectors, whose cosines are its scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dsd_jax.diffusion.pipeline import padded_chunks
from dsd_jax.diffusion.tokenization import check_captions, tokenize, tokenizer_digest
from dsd_jax.distributed.sharding import mesh_of, shard_rows
from dsd_jax.errors import UserError
from dsd_jax.models.clip import CLIP, CLIPConfig, unit
from dsd_jax.models.text_encoder import TextConfig

LEGACY_END = 2  # what configs before transformers 4.31 call the end token, whatever its id
_LENGTH_MULTIPLE = 8  # of tokens, so that few lengths are compiled
_IMAGE_CHUNK = 256  # images of 64 pixels encoded at a time; fewer of larger ones
_CAPTION_CHUNK = 64


class Normalizer(NamedTuple):
    """The mean and standard deviation of each color channel, for pixels in [0, 1].

    The defaults are OpenAI's, which nearly all CLIPs use.
    """

    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def __call__(self, pixels: jax.Array | np.ndarray) -> jax.Array:
        """Normalize uint8 pixels (I, S, S, 3) to float32 of the same shape."""
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        return (jnp.asarray(pixels).astype(jnp.float32) / 255 - mean) / std


def without_padding(ids: np.ndarray, config: TextConfig) -> np.ndarray:
    """Cut token ids (C, L) to (C, L') behind the longest caption's end token.

    A token attends only to those before it, so the end token's state is the same without padding.
    """
    end = config.end_token
    longest = int(np.argmax(ids if end == LEGACY_END else ids == end, axis=1).max()) + 1
    return ids[:, : -(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE]


@dataclass(frozen=True)
class Clip:
    """A CLIP, made by `load_clip`.

    Attributes:
        name: where it was loaded from.
        config: sizes of both towers.
        params: the transformers-Flax tree.
        tokenizer: a `transformers.CLIPTokenizer`.
        normalize: applied to pixels.
    """

    name: str
    config: CLIPConfig
    params: dict[str, Any]
    tokenizer: Any
    normalize: Normalizer

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the params, in which matrix products run."""
        return self.params["visual_projection"]["kernel"].dtype

    @property
    def mesh(self) -> Mesh:
        """The mesh of this host's devices on which the params are placed."""
        return mesh_of(self.params["visual_projection"])

    @property
    def image_size(self) -> int:
        """The side of its square images, in pixels."""
        return self.config.vision.image_size

    @property
    def logit_scale(self) -> float:
        """The factor from cosines to logits: the exponential of the parameter."""
        return float(np.exp(np.asarray(self.params["logit_scale"], np.float32)))

    def settings(self) -> str:
        """Return, as one string, all settings beside the params that embeddings depend on."""
        return f"{self.config!r} {self.normalize!r} {tokenizer_digest(self.tokenizer)}"

    def embed_images(self, pixels: np.ndarray) -> jax.Array:
        """Embed uint8 images (I, S, S, 3), S = `image_size`, as float32 unit vectors (I, E).

        Raises:
            UserError: they have another shape or dtype; `read_images` resizes any image.
        """
        pixels = check_pixels(pixels, self.image_size, 4)
        rows = max(1, _IMAGE_CHUNK * 64**2 // self.image_size**2)
        embed = partial(_embed_images, self.config, self.dtype, self.normalize, self.params)
        chunks = [embed(chunk) for chunk in self._chunks(pixels, rows)]
        return jnp.concatenate(chunks)[: len(pixels)]

    def embed_texts(self, captions: Sequence[str]) -> jax.Array:
        """Embed C captions as float32 unit vectors (C, E); too long ones are cut with a warning.

        Raises:
            UserError: a caption is empty or not a string.
        """
        ids = self.tokenize(check_captions(captions))
        embed = partial(_embed_texts, self.config, self.dtype, self.params)
        chunks = [embed(chunk) for chunk in self._chunks(ids, _CAPTION_CHUNK)]
        return jnp.concatenate(chunks)[: len(ids)]

    def tokenize(self, captions: Sequence[str]) -> np.ndarray:
        """Return token ids (C, L) int32, L as the longest caption needs."""
        return without_padding(tokenize(self.tokenizer, captions), self.config.text)

    def item_scores(self, pixels: np.ndarray, captions: Sequence[Sequence[str]]) -> jax.Array:
        """Return the logits of n items, each image with each caption: (n, P, J) float32.

        Args:
            pixels: uint8 (n, P, S, S, 3).
            captions: n lists of J captions.

        Raises:
            UserError: see `embed_images` and `embed_texts`; or items differ in J.
        """
        pixels = check_pixels(pixels, self.image_size, 5)
        per_item = check_items(pixels, captions)
        images = self.embed_images(pixels.reshape(-1, *pixels.shape[2:]))
        texts = self.embed_texts([caption for item in captions for caption in item])
        return self.logit_scale * item_cosines(images, texts, pixels.shape[1], per_item)

    def _chunks(self, rows: np.ndarray, size: int) -> Iterator[Any]:
        """Yield chunks of `size` rows per device, the last one padded, sharded over devices."""
        mesh = self.mesh
        return (shard_rows(mesh, x) for x in padded_chunks(rows, size * mesh.size))


def check_pixels(pixels: np.ndarray, size: int, dims: int) -> np.ndarray:
    """Return the pixels as a uint8 array of `dims` dims ending in (size, size, 3).

    Raises:
        UserError: they are not.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != dims or pixels.shape[-3:] != (size, size, 3):
        shape = ", ".join(["...", str(size), str(size), "3"])
        raise UserError(
            f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 ({shape}) with {dims} dims."
        )
    return pixels


def check_items(pixels: np.ndarray, captions: Sequence[Sequence[str]]) -> int:
    """Return J, the number of captions per item.

    Raises:
        UserError: items differ in it, or there are not as many lists as items.
    """
    counts = {len(item) for item in captions}
    if len(captions) != len(pixels) or len(counts) != 1:
        raise UserError(
            f"there are the images of {len(pixels)} items and {len(captions)} lists of "
            f"{' or '.join(map(str, sorted(counts))) or 'no'} captions; expected one list for each "
            "item, all of one length."
        )
    return counts.pop()


def item_cosines(
    images: jax.Array, texts: jax.Array, images_per_item: int, captions_per_item: int
) -> jax.Array:
    """Return the cosines (n, P, J) of n items from unit vectors (n*P, E) and (n*J, E)."""
    images = images.reshape(-1, images_per_item, images.shape[-1])
    texts = texts.reshape(-1, captions_per_item, texts.shape[-1])
    return jnp.einsum("nPE,nJE->nPJ", images, texts)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _embed_images(
    config: CLIPConfig, dtype: Any, normalize: Normalizer, params: Any, pixels: jax.Array
) -> jax.Array:
    model = CLIP(config, dtype)
    images: Any = model.apply({"params": params}, normalize(pixels), method="encode_images")
    return unit(images)


@partial(jax.jit, static_argnums=(0, 1))
def _embed_texts(config: CLIPConfig, dtype: Any, params: Any, ids: jax.Array) -> jax.Array:
    texts: Any = CLIP(config, dtype).apply({"params": params}, ids, method="encode_texts")
    return unit(texts)
