"""A loaded CLIP: pictures and captions to unit vectors, whose cosines say what fits what."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dsd_jax.clip.caption_ids import without_padding
from dsd_jax.clip.normalisation import Normaliser
from dsd_jax.diffusion.pipeline import padded_chunks
from dsd_jax.diffusion.tokenization import check_captions, tokenize, tokenizer_digest
from dsd_jax.distributed.sharding import mesh_of, shard_rows
from dsd_jax.errors import UserError
from dsd_jax.models.clip import CLIP, CLIPConfig, unit

_IMAGE_CHUNK = 256  # pictures of 64 pixels encoded at a time; fewer of larger ones
_TEXT_CHUNK = 64


@dataclass(frozen=True)
class Clip:
    """A CLIP, made by `load_clip`.

    Attributes:
        name: what it was loaded from.
        params: the transformers-Flax tree.
        tokenizer: a `transformers.CLIPTokenizer`.
        normalise: what is done to pixels.
    """

    name: str
    config: CLIPConfig
    params: dict[str, Any]
    tokenizer: Any
    normalise: Normaliser

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the weights, in which matrix products run."""
        return self.params["visual_projection"]["kernel"].dtype

    @property
    def mesh(self) -> Mesh:
        """This host's devices, over which the weights lie."""
        return mesh_of(self.params["visual_projection"])

    @property
    def image_size(self) -> int:
        """Side of the square pictures that it takes, in pixels."""
        return self.config.vision.image_size

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by to be logits: the exponential of the parameter."""
        return float(np.exp(np.asarray(self.params["logit_scale"], np.float32)))

    def settings(self) -> str:
        """Return all but the weights that decides what images and captions become, in a string."""
        return f"{self.config!r} {self.normalise!r} {tokenizer_digest(self.tokenizer)}"

    def embed_images(self, pixels: np.ndarray) -> jax.Array:
        """Pictures, uint8 (I, S, S, 3) with S = `image_size` -> unit vectors (I, E) float32.

        Raises:
            UserError: they have another shape or type; `data.images.read_images` makes what it
                needs of any picture.
        """
        pixels = check_pixels(pixels, self.image_size, 4)
        rows = max(1, _IMAGE_CHUNK * 64**2 // self.image_size**2)
        embed = partial(_embed_images, self.config, self.dtype, self.normalise, self.params)
        chunks = [embed(chunk) for chunk in self._chunks(pixels, rows)]
        return jnp.concatenate(chunks)[: len(pixels)]

    def embed_texts(self, captions: Sequence[str]) -> jax.Array:
        """Captions -> unit vectors (C, E) float32; one that is too long is cut, with a warning.

        Raises:
            UserError: a caption is empty or not a string.
        """
        ids = self.tokenize(check_captions(captions))
        embed = partial(_embed_texts, self.config, self.dtype, self.params)
        chunks = [embed(chunk) for chunk in self._chunks(ids, _TEXT_CHUNK)]
        return jnp.concatenate(chunks)[: len(ids)]

    def tokenize(self, captions: Sequence[str]) -> np.ndarray:
        """Token ids (C, L) int32, L no more than the longest caption needs."""
        return without_padding(tokenize(self.tokenizer, captions), self.config.text)

    def item_scores(self, pixels: np.ndarray, captions: Sequence[Sequence[str]]) -> jax.Array:
        """The logits of n items, of each picture with each caption: (n, P, J) float32.

        Args:
            pixels: uint8 (n, P, S, S, 3).
            captions: n lists of J captions.

        Raises:
            UserError: as `embed_images` and `embed_texts`, and where items have unequally many.
        """
        pixels = check_pixels(pixels, self.image_size, 5)
        width = check_items(pixels, captions)
        images = self.embed_images(pixels.reshape(-1, *pixels.shape[2:]))
        texts = self.embed_texts([caption for row in captions for caption in row])
        return item_logits(images, texts, pixels.shape[1], width, self.logit_scale)

    def _chunks(self, rows: np.ndarray, size: int) -> Iterator[jax.Array]:
        """Rows in pieces of one shape, `size` for every device, each device with its part."""
        mesh = self.mesh
        return (shard_rows(mesh, x) for x in padded_chunks(rows, size * mesh.size))


def check_pixels(pixels: np.ndarray, size: int, dims: int) -> np.ndarray:
    """The pixels as an array of `dims` dims, the last three (size, size, 3); else `UserError`."""
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != dims or pixels.shape[-3:] != (size, size, 3):
        shape = ", ".join(["...", str(size), str(size), "3"])
        raise UserError(
            f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 ({shape}) with {dims} dims."
        )
    return pixels


def check_items(pixels: np.ndarray, captions: Sequence[Sequence[str]]) -> int:
    """J, the number of captions of every item; `UserError` where items have unequally many."""
    widths = {len(row) for row in captions}
    if len(captions) != len(pixels) or len(widths) != 1:
        raise UserError(
            f"there are the pictures of {len(pixels)} items and {len(captions)} lists of "
            f"{' or '.join(map(str, sorted(widths))) or 'no'} captions; expected one list for each "
            "item, all of one length."
        )
    return widths.pop()


def item_logits(
    images: jax.Array, texts: jax.Array, pictures: int, captions: int, scale: float | jax.Array
) -> jax.Array:
    """Unit vectors of n items' P pictures (n*P, E) and J captions (n*J, E) -> (n, P, J)."""
    images = images.reshape(-1, pictures, images.shape[-1])
    texts = texts.reshape(-1, captions, texts.shape[-1])
    return scale * jnp.einsum("nPE,nJE->nPJ", images, texts)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _embed_images(
    config: CLIPConfig, dtype: Any, normalise: Normaliser, params: Any, pixels: jax.Array
) -> jax.Array:
    model = CLIP(config, dtype)
    return unit(model.apply({"params": params}, normalise(pixels), method="encode_images"))


@partial(jax.jit, static_argnums=(0, 1))
def _embed_texts(config: CLIPConfig, dtype: Any, params: Any, ids: jax.Array) -> jax.Array:
    return unit(CLIP(config, dtype).apply({"params": params}, ids, method="encode_texts"))
