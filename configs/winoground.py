"""Winoground: two images and two captions of the same words; text, image and group score.

python -m dsd_jax.evaluate --config=configs/winoground.py --config.data.folder=DIR \
    --workdir=runs/winoground
DIR holds data/*.parquet, or data/examples.jsonl and data/images/; see
dsd_jax/data/datasets/winoground.py. Sets of the same kind, which
dsd_jax/data/datasets/compositional.py describes: winoground.py:sugarcrepe, :cola, :aro,
:whatsup. Winoground on the bundled model and generated images:
python -m dsd_jax.evaluate --config=configs/winoground.py:tiny --workdir=runs/winoground-tiny
"""

from ml_collections import ConfigDict

from dsd_jax.config.defaults import benchmark_defaults, choose, shrink

LAYOUTS = ("sugarcrepe", "cola", "aro", "whatsup")


def get_config(name: str = "winoground") -> ConfigDict:
    """Return the config of a set by its name; `tiny` is Winoground with generated images."""
    choose(name, ("winoground", *LAYOUTS, "tiny"))
    config = benchmark_defaults("compositional" if name in LAYOUTS else "winoground")
    if name in LAYOUTS:
        config.data.layout = name
    config.timesteps = 30
    config.splits = ("all",)
    config.recipes = ()  # --config.data.split_rule=apart gives "shots" and "test" to learn from
    return shrink(config) if name == "tiny" else config
