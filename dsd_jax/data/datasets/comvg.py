"""ComVG: a caption with a Visual Genome picture that it fits and one that differs in one thing.

Files as people have them, all in one folder:

    compositional_visual_genome.csv   5,400 items: sentence, pos_triplet, neg_triplet,
                                      pos_image_id, neg_image_id, neg_value; MIT licence, from
                                      https://github.com/eric-ai-lab/ComCLIP or .../Discffusion
    VG_100K/ID.jpg, VG_100K_2/ID.jpg  Visual Genome's pictures (CC BY 4.0), or those of the
                                      benchmark alone as the authors keep them in vg_concept/
    comvg_train.csv                   the authors' training rows, of the same columns; optional

The kind is `neg_value`: subject (1,536 items), verb (1,280) or object (2,584).

What is odd in the file, and left as it is for the sake of comparable numbers: 78 rows repeat an
earlier one; 14 cannot be solved, as the wrong picture fits the same sentence elsewhere (ids 2994 to
3001, "frisbe" for "frisbee", and 5167 to 5172, "cutting" for "cut"); in 326 more than one part of
the triplet differs; some sentences were broken by replacing words ("a woman is riding the sea." of
woman, ride, bike). 524 pictures serve all the rows, each of them as right and as wrong one, so that
no cut keeps pictures apart altogether: clusters are those of the right picture.
"""

from functools import partial
from typing import Literal

from pydantic import model_validator

from dsd_jax.data.annotation_fields import Digits, FileRow, Text, check_different
from dsd_jax.data.annotation_files import not_empty, parse_rows, read_csv
from dsd_jax.data.dataset import Row, to_examples
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.image_folder import locate, reader
from dsd_jax.data.required_files import Piece, existing_folder, find_pieces

CSV = "compositional_visual_genome.csv"
COLUMNS = ("sentence", "pos_image_id", "neg_image_id", "neg_value")
KINDS = ("subject", "verb", "object")
FOLDERS = ("VG_100K", "VG_100K_2", "vg_concept", "")
CSV_SOURCE = "https://github.com/eric-ai-lab/Discffusion (data/)"
PICTURES_SOURCE = (
    "https://homes.cs.washington.edu/~ranjay/visualgenome (images.zip and images2.zip)"
)


def benchmark(
    folder: str, pictures: str = "", csv: str = CSV, shots_csv: str = "", fit: str = "stretch"
) -> Benchmark:
    """Splits "all" and its parts "subject", "verb" and "object"; "train" if there are such rows.

    Args:
        folder: what holds the csv and, unless `pictures` is given, the pictures' folders.
        pictures: what holds VG_100K and VG_100K_2.
        csv: the file of the items.
        shots_csv: the file of more items to draw shots from, such as the authors'
            comvg_train.csv, of which they take the first 5 %; "" for none.
        fit: how pictures become square; see `images.FITS`.
    """
    files = dict.fromkeys(("all", *KINDS), csv) | ({"train": shots_csv} if shots_csv else {})
    return Benchmark("comvg", tuple(files), partial(load, folder, pictures, files, fit))


def load(folder: str, pictures: str, files: dict[str, str], fit: str, split: str) -> Examples:
    """The items of a split; which pictures are there is looked up at once, none is read."""
    root = existing_folder(folder)
    place = existing_folder(pictures, "pictures") if pictures else root
    piece = Piece((files[split], f"data/{files[split]}"), CSV_SOURCE)
    (path,) = find_pieces(root, [piece], place, Piece(FOLDERS, PICTURES_SOURCE))
    lines = parse_rows(Line, read_csv(path, COLUMNS), path, "line")
    chosen = [line for line in lines if split not in KINDS or line.neg_value == split]
    not_empty(path, chosen)
    names = (name for line in chosen for name in line.names)
    found = locate(place, FOLDERS, names, PICTURES_SOURCE)
    return to_examples((to_row(line, found) for line in chosen), reader(place, fit))


class Line(FileRow):
    """A row of the csv."""

    sentence: Text
    pos_image_id: Digits
    neg_image_id: Digits
    neg_value: Literal["subject", "verb", "object"]

    @model_validator(mode="after")
    def _check(self) -> "Line":
        check_different(self.pos_image_id, self.neg_image_id, "images")
        return self

    @property
    def names(self) -> tuple[str, str]:
        """The images' names: the right one and the wrong one."""
        return f"{self.pos_image_id}.jpg", f"{self.neg_image_id}.jpg"


def to_row(line: Line, found: dict[str, str]) -> Row:
    """Return one item; the sentence as it is written, full stop included."""
    right, wrong = line.names
    return Row((line.sentence,), (found[right], found[wrong]), line.neg_value, line.pos_image_id)
