"""ComVG: a caption and two Visual Genome images that differ in subject, verb or object.

python -m dsd_jax.train --config=configs/comvg.py --config.data.folder=DIR --workdir=runs/comvg
DIR holds compositional_visual_genome.csv and VG_100K*/; see dsd_jax/data/datasets/comvg.py.
The same on the bundled model and generated images:
python -m dsd_jax.train --config=configs/comvg.py:tiny --workdir=runs/comvg-tiny
"""

from ml_collections import ConfigDict

from dsd_jax.config.defaults import benchmark_defaults, choose, shrink


def get_config(size: str = "full") -> ConfigDict:
    """Return the config: 40 timesteps and 5 % of the items as shots, as published, or `tiny`."""
    choose(size, ("full", "tiny"))
    config = benchmark_defaults("comvg")
    config.data.split_rule = "apart"
    config.timesteps = 40
    if size == "tiny":
        shrink(config)
        config.recipes = ("weights", "authors")
        config.data.shots_part, config.data.validation_part = 0.3, 0.1
    return config
