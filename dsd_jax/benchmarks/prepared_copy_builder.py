"""One tensorflow-datasets builder for the items of any benchmark; it never needs TensorFlow.

Importing this file imports tensorflow_datasets; `records.py` does so when it must.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from dsd_jax.data.datasets.emoji_builder import encode_png
from dsd_jax.data.examples import THREADS, Examples

AT_ONCE = 64  # pictures that are read before the first of them is written


class Records(tfds.core.GeneratorBasedBuilder):
    """Some `Examples`: a split "pictures", each different one once, and a split "items".

    An item is a line of JSON: its captions, the numbers of its pictures, its kind and its cluster;
    a record has a picture or an item, and nothing in the other's place.
    """

    # Raise it whenever what is written changes: prepared folders are found by it.
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # nothing is downloaded; see emoji_builder

    def __init__(self, examples: Examples, size: int, **options: Any):
        self._examples, self._size = examples, size
        keys = (key for pictures in examples.pictures for key in pictures)
        self._numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        clusters = dict.fromkeys(examples.clusters)
        self._clusters = {cluster: i for i, cluster in enumerate(clusters)}
        super().__init__(**options)

    def _info(self):
        features = {
            "picture": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "item": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # so that item i is record i
        )

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in ("pictures", "items")}

    def _generate_examples(self, split):
        return self._pictures() if split == "pictures" else self._items()

    def _pictures(self) -> Iterator[tuple[int, dict]]:
        keys = list(self._numbers)
        with (
            ThreadPoolExecutor(THREADS) as pool,
            tqdm(total=len(keys), desc="pictures", leave=False) as bar,
        ):
            for start in range(0, len(keys), AT_ONCE):
                for png in pool.map(self._png, keys[start : start + AT_ONCE]):
                    yield bar.n, {"picture": png, "item": ""}
                    bar.update()

    def _png(self, key: Any) -> bytes:
        return encode_png(self._examples.read(key, self._size))

    def _items(self) -> Iterator[tuple[int, dict]]:
        blank = encode_png(np.zeros((1, 1, 3), np.uint8))  # all records have the same fields
        rows = zip(*self._examples[:-1], strict=True)
        for i, (captions, pictures, kind, cluster) in enumerate(rows):
            numbers = [self._numbers[key] for key in pictures]
            item = json.dumps([captions, numbers, kind, self._clusters[cluster]])
            yield i, {"picture": blank, "item": item}
