"""A small data set as people would make their own: pictures of emoji scenes and captions."""

import json
from pathlib import Path

from dsd_jax.data.small_sets.scene_pairs import save, triples
from dsd_jax.data.synthetic.scenes import describe, read_plan
from dsd_jax.data.synthetic.sprites import Sprites

PER_KIND = 10


def make(folder: Path, sprites: Sprites) -> None:
    """50 pictures, each with its caption and a wrong one."""
    lines = []
    kinds = ("subject", "object", "relation", "size", "background")
    for number, triple in enumerate(triples(sprites, kinds, PER_KIND)):
        image = f"pictures/{number:02d}.jpg"
        save(triple.positive, sprites, folder / image)
        wrong = describe(read_plan(triple.negative), sprites.concepts)
        caption = describe(read_plan(triple.positive), sprites.concepts)
        line = {"image": image, "caption": caption, "wrong_captions": [wrong], "kind": triple.kind}
        lines.append(json.dumps(line))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
