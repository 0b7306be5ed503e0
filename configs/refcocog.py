"""RefCOCOg: a COCO image and ten sentences, one of them about something in it.

python -m dsd_jax.train --config=configs/refcocog.py --config.data.folder=DIR --workdir=runs/ref
DIR holds refs(umd).p, instances.json and train2014/; see dsd_jax/data/datasets/refcocog.py.
The same on the bundled model and generated images:
python -m dsd_jax.train --config=configs/refcocog.py:tiny --workdir=runs/refcocog-tiny
"""

from ml_collections import ConfigDict

from dsd_jax.config.defaults import benchmark_defaults, choose, shrink


def get_config(size: str = "full") -> ConfigDict:
    """Return the config: 10 timesteps and 5 % of the training sentences as shots, as published."""
    choose(size, ("full", "tiny"))
    config = benchmark_defaults("refcocog")
    config.timesteps = 10
    config.splits = ("test",)
    config.shots_from = "train"
    config.shots = (0.05,)
    config.learn.authors.steps = 500_000
    if size == "tiny":
        shrink(config)
        config.shots = (0.5,)
    return config
