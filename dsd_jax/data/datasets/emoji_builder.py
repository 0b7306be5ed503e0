"""The emoji benchmark as a tensorflow-datasets builder that never needs TensorFlow.

Importing this file imports tensorflow_datasets; `emoji.load_items` does so when it must.
"""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from dsd_jax.data.datasets.emoji import IMAGES
from dsd_jax.data.synthetic.scenes import SIDE, draw
from dsd_jax.data.synthetic.sprites import load_sprites
from dsd_jax.data.synthetic.triples import ARTISTS, KINDS, SPLITS, make_triples


class Emoji(tfds.core.GeneratorBasedBuilder):
    """Captions, each with a scene that it fits and one that it does not.

    One config per group of artists, three splits each; an example is `{"id": int64, "caption",
    "kind", "positive", "negative"}` with 64x64 PNGs, in the order of their ids.
    """

    # Raise it whenever an item changes: cached copies are found by it (a test holds the hash).
    VERSION = tfds.core.Version("1.1.0")
    # Nothing is downloaded. Looking for checksums beside this file, as tensorflow-datasets 4.9.10
    # would, takes importlib_resources, which it doesn't declare.
    url_infos = None
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=artists) for artists in ARTISTS]

    def _info(self):
        image = tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png")
        features = {
            "id": tfds.features.Scalar(np.int64),
            "caption": tfds.features.Text(),
            "kind": tfds.features.ClassLabel(names=KINDS),
            **dict.fromkeys(IMAGES, image),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # so that item i is record i, and a host reads its own alone
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split):
        sprites = load_sprites()
        triples = make_triples(self.builder_config.name, split, sprites.concepts)
        for i, triple in enumerate(triples):
            yield (
                i,
                {
                    "id": i,
                    "caption": triple.caption,
                    "kind": triple.kind,
                    "positive": encode_png(draw(triple.positive, sprites)),
                    "negative": encode_png(draw(triple.negative, sprites)),
                },
            )


def encode_png(image):
    """PNG bytes: given an array instead, tensorflow-datasets would ask TensorFlow to encode it."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
