"""ComVG: a caption with a Visual Genome image that it fits and one that differs in one thing.

Files as people have them, all in one folder:

    compositional_visual_genome.csv   5,400 items: sentence, pos_triplet, neg_triplet,
                                      pos_image_id, neg_image_id, neg_value; MIT licence, from
                                      https://github.com/eric-ai-lab/ComCLIP or .../Discffusion
    VG_100K/ID.jpg, VG_100K_2/ID.jpg  Visual Genome's images (CC BY 4.0), or those of the
                                      benchmark alone as the authors keep them in vg_concept/
    comvg_train.csv                   the authors' training rows, of the same columns; optional

The kind is `neg_value`: subject (1,536 items), verb (1,280) or object (2,584).

Oddities of the file, left as they are for the sake of comparable numbers: 78 rows repeat an
earlier one; 14 cannot be solved, as the wrong image fits the same sentence elsewhere (ids 2994 to
3001, "frisbe" for "frisbee", and 5167 to 5172, "cutting" for "cut"); in 326 more than one part of
the triplet differs; some sentences were broken by replacing words ("a woman is riding the sea." of
woman, ride, bike). 524 images serve all the rows, each of them as right and as wrong one, so that
no cut keeps images apart altogether: clusters are those of the right image.
"""

from typing import Literal

from pydantic import model_validator

from dsd_jax.data.annotation_files import (
    Digits,
    FileRow,
    Text,
    check_different,
    not_empty,
    parse_rows,
    read_csv,
)
from dsd_jax.data.data_folder import DataFolder, RequiredFile
from dsd_jax.data.examples import Benchmark, Example, Examples

CSV = "compositional_visual_genome.csv"
COLUMNS = ("sentence", "pos_image_id", "neg_image_id", "neg_value")
KINDS = ("subject", "verb", "object")
CSV_SOURCE = "https://github.com/eric-ai-lab/Discffusion (data/)"
IMAGE_FOLDERS = RequiredFile(
    ("VG_100K", "VG_100K_2", "vg_concept", ""),
    "https://homes.cs.washington.edu/~ranjay/visualgenome (images.zip and images2.zip)",
)


def benchmark(
    folder: str, *, pictures: str = "", csv: str = CSV, shots_csv: str = "", fit: str = "stretch"
) -> Benchmark:
    """Open splits "all" and its parts "subject", "verb" and "object"; "train" if it has a file.

    Args:
        folder: what holds the csv and, unless `pictures` is given, the images' folders.
        pictures: what holds VG_100K and VG_100K_2.
        csv: the file of the items.
        shots_csv: the file of more items to draw shots from, such as the authors'
            comvg_train.csv, of which they take the first 5 %; "" for none.
        fit: how images become square; see `images.FITS`.
    """
    files = dict.fromkeys(("all", *KINDS), csv) | ({"train": shots_csv} if shots_csv else {})

    def load(split: str) -> Examples:
        place = DataFolder.open(folder, IMAGE_FOLDERS, pictures=pictures, fit=fit)
        return load_split(place, files[split], split)

    return Benchmark("comvg", tuple(files), load)


def load_split(folder: DataFolder, csv: str, split: str) -> Examples:
    """Return the items of a split; missing images are noticed at once, none is read yet."""
    (path,) = folder.find([RequiredFile((csv, f"data/{csv}"), CSV_SOURCE)])
    rows = parse_rows(ComVGRow, read_csv(path, COLUMNS), path, "line")
    selected = [row for row in rows if split not in KINDS or row.neg_value == split]
    return folder.examples(row.to_example() for row in not_empty(path, selected))


class ComVGRow(FileRow):
    """A row of the csv; its sentence is used as it is written, full stop included."""

    sentence: Text
    pos_image_id: Digits
    neg_image_id: Digits
    neg_value: Literal["subject", "verb", "object"]

    @model_validator(mode="after")
    def _check(self) -> "ComVGRow":
        check_different(self.pos_image_id, self.neg_image_id, "images")
        return self

    def to_example(self) -> Example:
        """Return the item: the right image and the wrong one, by name."""
        images = (f"{self.pos_image_id}.jpg", f"{self.neg_image_id}.jpg")
        return Example((self.sentence,), images, self.neg_value, self.pos_image_id)
