"""A small Winoground of emoji scenes, in its parquet layout: two things that change roles."""

from pathlib import Path

from dsd_jax.data.small_sets.scene_pairs import encoded, swapped, triples
from dsd_jax.data.synthetic.scenes import describe, read_plan
from dsd_jax.data.synthetic.sprites import Sprites

PER_KIND = 8
TAGS = {"subject": "Object", "object": "Object", "relation": "Relation"}
GROUP = 10  # rows that a reader gets at once


def make(folder: Path, sprites: Sprites) -> None:
    """48 items: 32 in which the things change places, 16 in which the relation is turned round."""
    import pyarrow
    import pyarrow.parquet

    rows = []
    kinds = ("subject", "object", "relation")
    for number, triple in enumerate(triples(sprites, kinds, 2 * PER_KIND)):
        first = triple.positive
        turned = triple.negative if triple.kind == "relation" else swapped(first, number)
        row = {"id": number}
        for i, scene in enumerate((first, turned)):
            name = f"ex_{number}_img_{i}.png"
            row[f"image_{i}"] = {"bytes": encoded(scene, sprites, "png"), "path": name}
            row[f"caption_{i}"] = describe(read_plan(scene), sprites.concepts, (False, False))
        row |= {"tag": "Noun", "secondary_tag": "", "num_main_preds": 1}
        rows.append(row | {"collapsed_tag": TAGS[triple.kind]})
    (folder / "data").mkdir(parents=True)
    table = pyarrow.Table.from_pylist(rows)
    path = folder / "data" / "test-00000-of-00001.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=GROUP)
