"""The main job: few-shot learning on the bundled model, then evaluation; minutes on two cores.

python -m dsd_jax.train --config=configs/emoji.py --workdir=runs/emoji
All test items and three draws take half an hour:
python -m dsd_jax.train --config=configs/emoji.py:full --workdir=runs/emoji-full
Every method, every kind of prompts and a dual encoder, as in docs/results.md; under an hour:
python -m dsd_jax.train --config=configs/emoji.py:table --workdir=runs/table
"""

from typing import Any

from ml_collections import ConfigDict

from dsd_jax.config.defaults import choose, recipe_defaults, run_defaults


def get_config(size: str = "quick") -> ConfigDict:
    """Return the config: `quick` learns from one draw, `full` from three; `table` compares all."""
    full = choose(size, ("quick", "full", "table")) == "full"
    config = run_defaults()
    config.data = ConfigDict()
    config.data.name = "emoji"  # the bundled benchmark, drawn once into ~/.cache/dsd_jax
    config.splits = ("unseen-artist/test", "seen-artists/test")
    config.per_kind = 500 if full else 60
    config.shots_from = "unseen-artist/shots"
    config.shots = (256,)
    config.timesteps = 10
    config.seeds = 3 if full else 1
    config.noises = 4 if full else 3
    config.recipes = ("weights", "adapted")
    config.learn = ConfigDict()

    # LoRA for the attention score. On this model it gains less than its error, so only `table` asks
    # for it.
    lora = config.learn.lora = recipe_defaults()
    lora.kinds = ("weights", "lora")

    weights = config.learn.weights = recipe_defaults()
    weights.kinds = ("weights",)
    weights.methods = config.methods

    # LoRA for the best zero-shot score, chosen on validation items. It also denoises the matching
    # images, which is what keeps a rate this high from overfitting: the model learns how the artist
    # draws. With 30 times the weight of that loss nothing is gained on held-out shots.
    adapted = config.learn.adapted = recipe_defaults()
    adapted.methods = ("relative",)
    adapted.denoise = 3.0
    adapted.rank = 16
    adapted.batch = 16
    adapted.timesteps = 2
    adapted.learning_rate = 4e-3
    adapted.steps = 300
    adapted.check_every = 100
    return compare_everything(config) if size == "table" else config


def compare_everything(config: Any) -> ConfigDict:
    """Change a config to every method and every kind of prompts, at four timesteps."""
    config.per_kind = 200
    config.timesteps = 4
    config.seeds, config.noises = 3, 2
    config.clip, config.tune.learning_rate = "tiny-clip", 1e-4
    config.methods = (
        *("attention", "noise", "noise-l1", "noise-huber", "itm", "relative", "dsd"),
        *("attention@10", "noise@30", "noise-l1@30", "itm@10", "relative@10", "dsd@10"),
        *("attention/compat", "dsd/compat"),
    )
    config.learn.weights.methods = ("attention", "noise", "itm", "relative", "dsd")

    adapted = config.learn.adapted
    adapted.rank, adapted.learning_rate = 4, 3e-3
    adapted.steps, adapted.check_every, adapted.patience = 100, 20, 4
    tokens = config.learn.tokens = ConfigDict(adapted)
    tokens.kinds = ("tokens",)

    # As the paper has it: LoRA and a hinge on its own score.
    paper = config.learn.paper = recipe_defaults()
    paper.methods = ("dsd",)
    paper.loss = "hinge"
    paper.margin = 0.1
    config.recipes = ("lora", "weights", "adapted", "tokens", "paper")
    return config
