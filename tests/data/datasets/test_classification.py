import os

import numpy as np
import pytest
from PIL import Image

from dsd_jax.data.data_folder import image_endings
from dsd_jax.data.datasets import classification
from dsd_jax.data.datasets.record_builders import encode_png
from dsd_jax.data.examples import skip_unreadable
from dsd_jax.data.small_sets import made_folder
from dsd_jax.errors import UserError

NAMES = ["cat", "chick", "dog", "elephant", "frog", "monkey", "penguin", "pig", "snake", "turtle"]


@pytest.fixture
def made(tmp_path):
    return made_folder("classify", tmp_path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder as tensorflow-datasets prepares labeled images, cifar10 for one."""
    import tensorflow_datasets as tfds

    class Labelled(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = None

        def _info(self):
            label = tfds.features.ClassLabel(names=["air_plane", "dog"])
            features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": label}
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(name) for name in ("train", "test", "unlabelled")}

        def _generate_examples(self, split):
            for i in range(6 if split == "train" else 4):
                image = encode_png(np.full((32, 32, 3), 10 * i, np.uint8))
                yield i, {"image": image, "label": -1 if split == "unlabelled" else i % 2}

    def prepare(form):
        folder = tmp_path_factory.mktemp(form)
        Labelled(data_dir=folder, file_format=form).download_and_prepare()
        return folder / "labelled" / "1.0.0"

    return prepare


def test_a_folder_of_folders(made):
    benchmark = classification.benchmark(str(made))
    assert benchmark.splits == ("all",)
    examples = benchmark.load("all")
    assert examples.count == 50 and examples.kinds == [name for name in NAMES for _ in range(5)]
    others = [name for name in NAMES if name != "dog"]
    assert examples.captions[12] == tuple(f"a photo of a {name}." for name in ["dog", *others])
    assert examples.images[12] == ("dog/2.jpg",)
    assert examples.read_images(examples.images[12], 20).shape == (1, 20, 20, 3)


def test_splits_of_folders_and_other_files_in_them(made, tmp_path):
    root = tmp_path / "splits"
    root.mkdir()
    made.rename(root / "test")
    (root / "test" / "cat" / "notes.txt").write_text("not a picture")
    (root / "test" / "empty").mkdir()
    (root / "readme").mkdir()
    benchmark = classification.benchmark(str(root))
    assert benchmark.splits == ("test",)
    assert benchmark.load("test").count == 50 and len(benchmark.load("test").captions[0]) == 10


def test_templates_take_turns_and_candidates_of_an_item_share_one(made):
    examples = classification.benchmark(str(made), templates=("a {}", "the {}", "{}!")).load("all")
    assert examples.captions[0][:2] == ("a cat", "a chick")
    assert examples.captions[1][:2] == ("the cat", "the chick")
    assert examples.captions[14][:2] == ("{}!".format("dog"), "cat!")


def test_names_by_file(made):
    lines = [f"{name}\t{'kitten' if name == 'cat' else name}" for name in NAMES]
    (made / "classes.txt").write_text("\n".join(lines))
    assert classification.benchmark(str(made)).load("all").captions[0][0] == "a photo of a kitten."
    (made / "classes.txt").write_text("\n".join(lines[1:]))
    with pytest.raises(UserError, match="classes.txt says no name for cat; add a line"):
        classification.benchmark(str(made)).load("all")
    (made / "classes.txt").write_text("cat kitten")
    with pytest.raises(UserError, match="expected lines of a folder's name, a tab and a name"):
        classification.benchmark(str(made)).load("all")


def test_many_classes_take_the_memory_of_few(tmp_path):
    for i in range(60):
        (tmp_path / f"class_{i:02d}").mkdir()
        for j in range(3):
            (tmp_path / f"class_{i:02d}" / f"{j}.png").touch()
    examples = classification.benchmark(str(tmp_path)).load("all")
    assert {len(texts) for texts in examples.captions} == {60}
    assert len({id(texts) for texts in examples.captions}) == 60  # not one tuple per picture
    assert examples.kinds == ["all"] * 180  # nobody reads a table of sixty rows
    assert examples.captions[4][0] == "a photo of a class 01."


def test_a_folder_that_tensorflow_datasets_prepared(prepared):
    folder = prepared("array_record")
    benchmark = classification.benchmark(str(folder), templates=("{}",))
    assert (benchmark.name, set(benchmark.splits)) == ("labelled", {"train", "test", "unlabelled"})
    examples = benchmark.load("test")
    assert examples.captions == [("air plane", "dog"), ("dog", "air plane")] * 2
    images = examples.read_images([key for (key,) in examples.images], 16)
    np.testing.assert_array_equal(images[:, 0, 0, 0], [0, 10, 20, 30])
    assert benchmark.load("train").count == 6
    with pytest.raises(UserError, match="split unlabelled has no labels"):
        benchmark.load("unlabelled")


def test_a_folder_that_only_tensorflow_reads(prepared):
    folder = prepared("array_record")
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match='as tfrecord, .* again with file_format="array_record"'):
        classification.benchmark(str(folder))
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="is not as tensorflow-datasets prepares it"):
        classification.benchmark(str(folder))


def fill(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), "red").save(root / name, "png")


def test_what_programs_put_beside_classes_is_neither_class_nor_image(tmp_path, capsys):
    fill(tmp_path, "cat/1.jpg", "cat/._1.jpg", "cat/.1.jpg.swp", "dog/1.jpg", "dog/._2.jpg")
    for name in (".ipynb_checkpoints", ".Trash-0", "@eaDir", "__MACOSX", "lost+found"):
        fill(tmp_path, f"{name}/1.jpg")
    examples = classification.benchmark(str(tmp_path)).load("all")
    assert examples.images == [("cat/1.jpg",), ("dog/1.jpg",)]
    assert examples.captions[0] == ("a photo of a cat.", "a photo of a dog.")
    assert capsys.readouterr().err == ""


def test_images_of_all_formats_that_can_be_read(tmp_path, capsys):
    ends = "jpg jpeg jpe jfif png apng webp gif bmp tif tiff avif jp2 j2k qoi tga ppm JPG PnG ico"
    fill(tmp_path, "dog/1.jpg", *(f"cat/{i:02d}.{end}" for i, end in enumerate(ends.split())))
    examples = classification.benchmark(str(tmp_path)).load("all")
    assert examples.count == 1 + len(ends.split())
    assert capsys.readouterr().err == ""
    assert image_endings() == tuple(end.lower() for end in image_endings())
    assert not {".pdf", ".mpg", ".h5", ".eps", ".txt"} & set(image_endings())


def test_what_is_left_out_is_counted_and_named_once(tmp_path, capsys):
    fill(tmp_path, "cat/1.jpg", "cat/more/2.jpg", "cat/3.heic", "dog/1.jpg", "dog/notes.txt")
    assert classification.benchmark(str(tmp_path)).load("all").count == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "3 files and folders (1) in class folders are left out" in line
    assert "cat/3.heic, cat/more, dog/notes.txt; images must lie in the class's folder" in line


def test_images_one_folder_deeper_are_told(tmp_path):
    fill(tmp_path, "photos/cat/1.jpg", "photos/dog/1.jpg")
    with pytest.raises(UserError, match=r"has 0 folders with images.* Its folders are photos\."):
        classification.benchmark(str(tmp_path)).load("all")


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_all_usual_names_of_a_validation_split(tmp_path, name):
    fill(tmp_path, *(f"{split}/{label}/1.jpg" for split in ("train", name) for label in "ab"))
    benchmark = classification.benchmark(str(tmp_path))
    assert benchmark.splits == ("train", name) and benchmark.load(name).count == 2


def test_names_of_folders_that_are_no_text(tmp_path):
    fill(tmp_path, "dog/1.jpg")
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    fill(tmp_path, "caf\udce9/1.jpg")
    with pytest.raises(UserError, match=r"folder 'caf\\udce9' is no UTF-8; rename it"):
        classification.benchmark(str(tmp_path)).load("all")


def test_a_fifo_is_no_image_and_is_not_waited_for(tmp_path):
    fill(tmp_path, "cat/1.jpg", "dog/1.jpg")
    os.mkfifo(tmp_path / "cat" / "2.jpg")
    examples = classification.benchmark(str(tmp_path)).load("all")
    with pytest.raises(UserError, match="2.jpg is no regular file"):
        examples.read_images(["cat/2.jpg"], 16)
    assert skip_unreadable(examples, "classify").count == 2


@pytest.mark.parametrize(
    "template",
    ["{} {", "{0.__class__}", "{:>99999999}", "{{}}", "{} {}", "{}}", "{!r}", "{} \ud83d", 7, None],
)
def test_templates_with_other_braces(made, template):
    with pytest.raises(UserError, match="templates are .*; expected texts with one {} each"):
        classification.benchmark(str(made), templates=("a {}", template))
    with pytest.raises(UserError, match="templates are 'a {}'; expected"):
        classification.benchmark(str(made), templates="a {}")


def test_names_with_braces_are_text(tmp_path):
    fill(tmp_path, "{0}/1.jpg", "{}/1.jpg")
    examples = classification.benchmark(str(tmp_path), templates=("a {}",)).load("all")
    assert examples.captions[0] == ("a {0}", "a {}")


def test_records_that_cannot_be_read_are_named(prepared, tmp_path):
    class Damaged:
        def __getitem__(self, number):
            if number:
                raise ValueError("wrong checksum")
            return {"image": b"no picture"}

    for number, message in ((0, "is not an image"), (1, "cannot be read .wrong checksum")):
        with pytest.raises(UserError, match=f"image {number} of {tmp_path} {message}"):
            classification.read_record(tmp_path, Damaged(), "stretch", number, 16)


def test_folders_and_templates_that_do_not_serve(tmp_path):
    with pytest.raises(UserError, match=r"templates are \('a photo',\); expected texts with one"):
        classification.benchmark(str(tmp_path), templates=("a photo",))
    with pytest.raises(UserError, match=r"templates are \(\); expected"):
        classification.benchmark(str(tmp_path), templates=())
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.jpg").touch()
    with pytest.raises(UserError, match="has 1 folders with images .* two or more classes"):
        classification.benchmark(str(tmp_path)).load("all")
