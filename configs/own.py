"""Your own images and captions: a folder with captions.jsonl or captions.csv.

python -m dsd_jax.train --config=configs/own.py --config.data.folder=DIR --workdir=runs/own
dsd_jax/data/datasets/custom.py describes the file. The same on the bundled model and
generated images:
python -m dsd_jax.train --config=configs/own.py:tiny --workdir=runs/own-tiny
"""

from ml_collections import ConfigDict

from dsd_jax.config.defaults import benchmark_defaults, choose, shrink


def get_config(size: str = "full") -> ConfigDict:
    """Return the config: half of the items are shots, the other half is the test split."""
    choose(size, ("full", "tiny"))
    config = benchmark_defaults("own")
    config.data.split_rule = "apart"  # "official" where the file has a column `split`
    config.data.shots_part, config.data.validation_part = 0.5, 0.0
    config.timesteps = 10
    config.learn.authors.steps = 1000
    config.learn.authors.check_every = 50
    return shrink(config) if size == "tiny" else config
