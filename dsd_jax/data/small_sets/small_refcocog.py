"""A small RefCOCOg of emoji scenes: each of a picture's two things has a sentence about it."""

import json
import pickle
from pathlib import Path

from dsd_jax.data.small_sets.scene_pairs import save, triples
from dsd_jax.data.synthetic.scenes import describe, read_plan
from dsd_jax.data.synthetic.sprites import Sprites

PICTURES = 26
SPLITS = ("train", "val", "test", "test")  # in turns


def make(folder: Path, sprites: Sprites) -> None:
    """52 items of 26 pictures in both files of refs; as in the public one, refs are Python 2's."""
    refs, images, annotations = [], [], []
    for number, triple in enumerate(triples(sprites, ("subject", "object"), PICTURES // 2), 1):
        name = f"COCO_train2014_{number:012d}.jpg"
        save(triple.positive, sprites, folder / "images" / "train2014" / name)
        images.append({"id": number, "file_name": name, "height": 64, "width": 64})
        plan = read_plan(triple.positive)
        for thing in range(2):
            annotation = 1000 + 2 * number + thing
            annotations.append({"id": annotation, "image_id": number, "category_id": 1})
            text = describe(plan, sprites.concepts, first=thing)
            refs.append(
                {
                    "ref_id": len(refs),
                    "ann_id": annotation,
                    "image_id": number,
                    "category_id": plan.concepts[thing],
                    "file_name": f"COCO_train2014_{number:012d}_{annotation}.jpg",
                    "split": SPLITS[number % len(SPLITS)],
                    "sent_ids": [len(refs)],
                    "sentences": [
                        {
                            "sent_id": len(refs),
                            "raw": text,
                            "sent": text,
                            "tokens": text.split(),
                        }
                    ],
                }
            )
    google = [ref | {"split": "val" if ref["ref_id"] % 4 == 0 else "train"} for ref in refs]
    for split_by, content in (("umd", refs), ("google", google)):
        (folder / f"refs({split_by}).p").write_bytes(pickle.dumps(content, protocol=0))
    whole = {"images": images, "annotations": annotations, "categories": []}
    (folder / "instances.json").write_text(json.dumps(whole), encoding="utf-8")
