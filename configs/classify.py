"""Zero-shot classification: the caption, of one per class, that fits an image best.

python -m dsd_jax.evaluate --config=configs/classify.py --config.data.folder=DIR \
    --workdir=runs/classify
DIR holds a folder of images per class, or what tensorflow-datasets prepared, such as
cifar10/3.0.2; see dsd_jax/data/datasets/classification.py. The same on the bundled model and
generated images:
python -m dsd_jax.evaluate --config=configs/classify.py:tiny --workdir=runs/classify-tiny
"""

from ml_collections import ConfigDict

from dsd_jax.config.defaults import benchmark_defaults, choose, shrink


def get_config(size: str = "full") -> ConfigDict:
    """Return the config: 30 timesteps, and the noise error with the worst classes dropped early."""
    choose(size, ("full", "tiny"))
    config = benchmark_defaults("classify")
    config.methods = ("attention", "noise", "relative", "noise@10>5@50>2@200")
    config.timesteps = 30
    config.splits = ("test",)
    config.per_kind = 100  # images of each class
    config.shots_from = "train"
    config.recipes = ()  # "weights" or "authors" learn from the split "train"
    if size == "tiny":
        shrink(config)
        config.splits = ("all",)
        config.data.templates = ("a {}", "a big {}")
        config.methods = ("attention", "noise", "relative", "relative@4>2@10")
    return config
