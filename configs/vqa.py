"""VQAv2 as matching: yes/no questions with ten images, other ones with ten answers.

python -m dsd_jax.train --config=configs/vqa.py --config.data.folder=DIR --workdir=runs/vqa
DIR holds questions, annotations, train2014/ and val2014/; see dsd_jax/data/datasets/vqa.py.
The same on the bundled model and generated images:
python -m dsd_jax.train --config=configs/vqa.py:tiny --workdir=runs/vqa-tiny
"""

from ml_collections import ConfigDict

from dsd_jax.config.defaults import benchmark_defaults, choose, shrink


def get_config(size: str = "full") -> ConfigDict:
    """Return the config: 200 timesteps and 5 % of the training questions as shots, as published."""
    choose(size, ("full", "tiny"))
    config = benchmark_defaults("vqa")
    config.timesteps = 200
    config.splits = ("val/binary", "val/other")
    config.per_kind = 1000  # of 214,354 questions; None scores them all
    config.shots_from = "train/other"
    config.shots = (0.05,)
    config.learn.authors.steps = 500_000
    if size == "tiny":
        shrink(config)
        config.shots = (0.5,)
    return config
