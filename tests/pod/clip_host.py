"""One host of a pod that tunes a CLIP: python -m tests.pod.clip_host DIR FSDP.

The first host writes DIR/found.npz, the held-out losses and the tuned weights, and DIR/step.txt,
the compiled step.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dsd_jax.cli import run_command
from dsd_jax.clip import fine_tuning
from dsd_jax.config.recipes import ClipRecipe
from dsd_jax.distributed import processes
from dsd_jax.distributed.devices import check_devices
from dsd_jax.distributed.sharding import simulate_cpu_devices
from tests.random_clip import random_clip

ITEMS, STEPS = 20, 6


def tune(fsdp: int) -> dict[str, np.ndarray]:
    """Return the held-out losses and the tuned weights, by name."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 100, (ITEMS, 2, 8, 8, 3))
    pixels[:, 0] += 100
    captions = [[f"a {word} cat"] for word in ("red", "green", "blue", "old") * 5]
    recipe = ClipRecipe(
        steps=STEPS, batch=8, learning_rate=2e-3, contrast=0.5, held_out=0.35, check_every=2
    )
    tuned = fine_tuning.fine_tune(random_clip(fsdp), pixels.astype(np.uint8), captions, recipe, 0)
    assert tuned.kept
    leaves = jax.tree_util.tree_leaves_with_path(tuned.clip.params)
    weights = {f"weights{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}
    return {"checks": np.array(list(tuned.checks.values())), **weights}


def main(argv: list[str]) -> None:
    simulate_cpu_devices(1)
    processes.join()
    check_devices()
    folder, compiled, original = Path(argv[0]), [], fine_tuning.update_function

    def update_function(*arguments: Any) -> Any:
        step = original(*arguments)

        def update(*inputs: Any) -> Any:
            if not compiled:
                compiled.append(step.lower(*inputs).compile().as_text())
            return step(*inputs)

        return update

    fine_tuning.update_function = update_function
    found = tune(int(argv[1]))
    if processes.is_main():
        np.savez(folder / "found.npz", **found)
        (folder / "step.txt").write_text(compiled[0])
    print(f"{len(jax.devices())} devices", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
