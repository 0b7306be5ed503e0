"""Builders of the array_record folders that this package prepares, without TensorFlow.

Importing this file imports tensorflow_datasets, which takes seconds; others do so when they must.
"""

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from dsd_jax.data.examples import THREADS, Examples
from dsd_jax.data.synthetic.scenes import SIDE, draw
from dsd_jax.data.synthetic.sprites import load_sprites
from dsd_jax.data.synthetic.triples import ARTISTS, IMAGES, KINDS, SPLITS, make_triples
from dsd_jax.io.progress import UNSEEN, Work

AT_ONCE = 64  # images that are read before the first of them is written


class _RecordBuilder(tfds.core.GeneratorBasedBuilder):
    """A builder of records in order.

    `VERSION` must be raised whenever what is written changes: prepared folders are found by it.
    """

    # Nothing is downloaded. Looking for checksums beside this file, as tensorflow-datasets 4.9.10
    # would, takes importlib_resources, which it doesn't declare.
    url_infos = None

    def _describe(self, features: dict[str, Any]) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # so that item i is record i, and a host reads its own alone
        )


class Emoji(_RecordBuilder):
    """The emoji benchmark: captions, each with a scene that it fits and one that it does not.

    One config per group of artists, three splits each; an example is `{"id": int64, "caption",
    "kind", "positive", "negative"}` with 64x64 PNGs, in the order of their ids.
    """

    VERSION = tfds.core.Version("1.1.0")  # a test holds the items' hash
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=artists) for artists in ARTISTS]

    def _info(self):
        image = tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png")
        return self._describe(
            {
                "id": tfds.features.Scalar(np.int64),
                "caption": tfds.features.Text(),
                "kind": tfds.features.ClassLabel(names=KINDS),
                **dict.fromkeys(IMAGES, image),
            }
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split):
        sprites = load_sprites()
        assert self.builder_config is not None
        triples = make_triples(self.builder_config.name, split, sprites.concepts)
        for i, triple in enumerate(triples):
            record = {
                "id": i,
                "caption": triple.caption,
                "kind": triple.kind,
                "positive": encode_png(draw(triple.positive, sprites)),
                "negative": encode_png(draw(triple.negative, sprites)),
            }
            yield i, record


class Records(_RecordBuilder):
    """A builder for any `Examples`: the splits "pictures", each image once, and "items".

    An item is a line of JSON: its captions, the indices of its images, its kind and its cluster;
    a record has an image or an item, and nothing in the other's place.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, examples: Examples, size: int, *, work: Work = UNSEEN, **options: Any):
        self._examples, self._size, self._work = examples, size, work
        keys = (key for images in examples.images for key in images)
        self._indices = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        clusters = dict.fromkeys(examples.clusters)
        self._clusters = {cluster: i for i, cluster in enumerate(clusters)}
        super().__init__(**options)

    def _info(self):
        return self._describe(
            {
                "picture": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "item": tfds.features.Text(),
            }
        )

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in ("pictures", "items")}

    def _generate_examples(self, split):
        return self._images() if split == "pictures" else self._items()

    def _images(self) -> Iterator[tuple[int, dict]]:
        keys = list(self._indices)
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(keys), AT_ONCE):
                pngs = pool.map(self._png, keys[start : start + AT_ONCE])
                for number, png in enumerate(pngs, start):
                    yield number, {"picture": png, "item": ""}
                    self._work.advance(1)

    def _png(self, key: Any) -> bytes:
        return encode_png(self._examples.read(key, self._size))

    def _items(self) -> Iterator[tuple[int, dict]]:
        blank = encode_png(np.zeros((1, 1, 3), np.uint8))  # all records have the same fields
        rows = zip(*self._examples[:-1], strict=True)
        for i, (captions, images, kind, cluster) in enumerate(rows):
            indices = [self._indices[key] for key in images]
            item = json.dumps([captions, indices, kind, self._clusters[cluster]])
            yield i, {"picture": blank, "item": item}


def encode_png(image: np.ndarray) -> bytes:
    """Return PNG bytes: tensorflow-datasets would ask TensorFlow to encode an array."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
