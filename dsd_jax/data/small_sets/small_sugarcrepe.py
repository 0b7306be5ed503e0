"""A small SugarCrepe of emoji scenes: a picture, its caption and one with a thing replaced."""

import json
from pathlib import Path

from dsd_jax.data.datasets.compositional_layouts import SUGARCREPE_KINDS
from dsd_jax.data.small_sets.scene_pairs import save, triples
from dsd_jax.data.synthetic.scenes import describe, read_plan
from dsd_jax.data.synthetic.sprites import Sprites

KINDS = {"subject": "replace_obj", "object": "swap_obj", "relation": "replace_rel"}
KINDS |= {"size": "replace_att", "background": "swap_att"}
PER_KIND = 8


def make(folder: Path, sprites: Sprites) -> None:
    """40 items; the two kinds with something added say a size, or a ground of another colour."""
    files: dict[str, dict] = {kind: {} for kind in SUGARCREPE_KINDS}
    for number, triple in enumerate(triples(sprites, tuple(KINDS), PER_KIND)):
        image = f"{number:012d}.jpg"
        save(triple.positive, sprites, folder / "val2017" / image)
        texts = [
            describe(read_plan(scene), sprites.concepts)
            for scene in (triple.positive, triple.negative)
        ]
        entry = {"filename": image, "caption": texts[0], "negative_caption": texts[1]}
        files[KINDS[triple.kind]][str(number)] = entry
        if triple.kind in ("size", "background"):
            added = "add_att" if triple.kind == "size" else "add_obj"
            files[added][str(number)] = entry
    for kind, entries in files.items():
        (folder / f"{kind}.json").write_text(json.dumps(entries), encoding="utf-8")
