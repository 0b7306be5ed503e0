"""One host of a pod that learns, evaluates and matches: python -m tests.pod.everything DIR FSDP.

The first host writes DIR/found.npz: what is learned and how it went, scores and a match matrix.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from dsd_jax.cli import run_command
from dsd_jax.distributed import processes
from dsd_jax.distributed.sharding import simulate_cpu_devices

RATE = 0.002  # that of configs/emoji.py: Adam blows up the noise of tiny gradients as rates do


def main(argv: list[str]) -> None:
    folder, fsdp = Path(argv[0]), int(argv[1])
    simulate_cpu_devices(1)
    processes.join()
    import dsd_jax
    from dsd_jax.benchmarks.encoded_items import gather_outputs, item_outputs
    from dsd_jax.few_shot import prompt_training
    from dsd_jax.few_shot.support_set import cache_frozen_outputs
    from dsd_jax.matching import score_functions
    from tests.few_shots import COUNT, NOISES, TIMESTEPS, few_model, pictures, recipe, telling_items

    model = few_model(fsdp)
    items = telling_items(model)
    shots = cache_frozen_outputs(model, items, TIMESTEPS, 0, noises=NOISES)
    settings = recipe(model, learning_rate=RATE)
    found = prompt_training.train_prompts(model, shots, settings, 0)
    mine = item_outputs(
        model,
        items.take(processes.local_range(COUNT)),
        TIMESTEPS,
        (5,),
        prompts={"lora": found.prompts["lora"]},
    )
    terms = gather_outputs(mine, 2, COUNT)
    result = {
        "held_out": list(found.checks.values()),
        "scores": np.reshape(score_functions.score(terms, "dsd", settings.layers), (COUNT, 2)),
        "matrix": dsd_jax.match_scores(
            model, list(pictures(3)[:, 0]), ["a cat", "a dog"], timesteps=2
        ),
    }
    leaves = jax.tree_util.tree_leaves_with_path(found.prompts)
    result |= {f"prompts{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}
    if processes.is_main():
        np.savez(folder / "found.npz", **result)
    print(f"{len(jax.devices())} devices, {dict(model.mesh.shape)} here", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
