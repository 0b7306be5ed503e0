"""The main job: few-shot learning on the bundled model, then evaluation; minutes on two cores.

python -m dsd_jax.train --config=configs/emoji.py --workdir=runs/emoji
All test items, fewer shots too and more steps take longer:
python -m dsd_jax.train --config=configs/emoji.py:full --workdir=runs/emoji-full
"""

from ml_collections import ConfigDict


def get_config(size: str = "quick") -> ConfigDict:
    """`quick` takes five minutes; `full` scores all test items and learns from fewer shots too."""
    full = size == "full"
    config = ConfigDict()
    config.weights = "tiny"  # "tiny", a folder, or "org/name[@revision]" on the Hub
    config.dtype = "float32"  # of the weights and matrix products; "bfloat16" on accelerators
    config.fsdp = 1  # devices of a host that share one copy of the weights
    config.cache = ""  # folder for encoded pictures and captions, which later runs find there
    config.seed = 0  # of the noise that is scored, and of the first draw of shots
    config.seeds = 3  # draws of shots and initialisations per few-shot row
    config.cpu_devices = 2  # simulated CPU devices; ignored where there is an accelerator

    config.methods = ("attention", "noise", "itm", "relative", "dsd")
    config.layers = ()  # whose attention scores count: paths; () is the authors' choice
    config.timesteps = 4  # noise levels per score
    config.splits = ("unseen-artist/test", "seen-artists/test")
    config.per_kind = 500 if full else 60  # items of each kind and split

    config.shots_from = "unseen-artist/shots"
    config.shots = (256, 64, 16) if full else (256,)
    config.noises = 4 if full else 2  # under which the shots are seen in training
    config.recipes = ("lora", "weights", "adapted")  # which of the following to learn by
    config.learn = ConfigDict()

    lora = config.learn.lora = ConfigDict()
    lora.kinds = ("weights", "lora")  # of "lora", "tokens" and "weights"; weights are fitted first
    lora.methods = ("attention",)  # whose losses are added up, and which the prompts serve
    lora.loss = "cross_entropy"  # or "hinge", as the authors have it
    lora.margin = 1.0  # of the hinge, in the unit that suits zero-shot margins
    lora.denoise = 0.0  # weight of the matching picture's denoising loss
    lora.steps = 200 if full else 60
    lora.batch = 8  # items per step
    lora.timesteps = 4  # of those that are scored, drawn anew for each step
    lora.learning_rate = 2e-3
    lora.weight_decay = 1e-2
    lora.rank = 4
    lora.tokens = 4  # learned tokens per layer, for the kind "tokens"
    lora.accumulate = 1  # parts that a batch is computed in, to fit into memory
    lora.remat = "nothing"  # recomputed for the gradient; "products" keeps those alone, or "blocks"
    lora.ridges = (1.0, 3.0, 10.0, 30.0, 100.0)  # strengths of the prior tried for "weights"
    lora.held_out = 0.2  # part of the shots that decides when to stop
    lora.check_every = 20  # steps between looks at it
    lora.patience = 4  # looks without improvement before stopping

    weights = config.learn.weights = ConfigDict(lora)
    weights.kinds = ("weights",)
    weights.methods = config.methods

    # LoRA for the best zero-shot score. It also denoises the matching pictures, which is what keeps
    # a rate this high from overfitting: the model learns how the artist draws.
    adapted = config.learn.adapted = ConfigDict(lora)
    adapted.kinds = ("lora",)
    adapted.methods = ("relative",)
    adapted.denoise = 3.0
    adapted.learning_rate = 3e-3
    adapted.steps = 400 if full else 100
    adapted.batch = 16
    adapted.timesteps = 2
    return config
