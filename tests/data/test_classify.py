import numpy as np
import pytest

from dsd_jax.data import classify
from dsd_jax.data.emoji_builder import encode_png
from dsd_jax.data.made.make import made_folder
from dsd_jax.errors import UserError

NAMES = ["cat", "chick", "dog", "elephant", "frog", "monkey", "penguin", "pig", "snake", "turtle"]


@pytest.fixture
def made(tmp_path):
    return made_folder("classify", tmp_path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What tensorflow-datasets prepares of labelled pictures, cifar10 for one."""
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
    benchmark = classify.benchmark(str(made))
    assert benchmark.splits == ("all",)
    examples = benchmark.load("all")
    assert examples.count == 50 and examples.kinds == [name for name in NAMES for _ in range(5)]
    others = [name for name in NAMES if name != "dog"]
    assert examples.captions[12] == tuple(f"a photo of a {name}." for name in ["dog", *others])
    assert examples.pictures[12] == ("dog/2.jpg",)
    assert examples.images(examples.pictures[12], 20).shape == (1, 20, 20, 3)


def test_splits_of_folders_and_other_files_in_them(made, tmp_path):
    root = tmp_path / "splits"
    root.mkdir()
    made.rename(root / "test")
    (root / "test" / "cat" / "notes.txt").write_text("not a picture")
    (root / "test" / "empty").mkdir()
    (root / "readme").mkdir()
    benchmark = classify.benchmark(str(root))
    assert benchmark.splits == ("test",)
    assert benchmark.load("test").count == 50 and len(benchmark.load("test").captions[0]) == 10


def test_templates_take_turns_and_candidates_of_an_item_share_one(made):
    examples = classify.benchmark(str(made), templates=("a {}", "the {}", "{}!")).load("all")
    assert examples.captions[0][:2] == ("a cat", "a chick")
    assert examples.captions[1][:2] == ("the cat", "the chick")
    assert examples.captions[14][:2] == ("{}!".format("dog"), "cat!")


def test_names_by_file(made):
    lines = [f"{name}\t{'kitten' if name == 'cat' else name}" for name in NAMES]
    (made / "classes.txt").write_text("\n".join(lines))
    assert classify.benchmark(str(made)).load("all").captions[0][0] == "a photo of a kitten."
    (made / "classes.txt").write_text("\n".join(lines[1:]))
    with pytest.raises(UserError, match="classes.txt says no name for cat; add a line"):
        classify.benchmark(str(made)).load("all")
    (made / "classes.txt").write_text("cat kitten")
    with pytest.raises(UserError, match="expected lines of a folder's name, a tab and a name"):
        classify.benchmark(str(made)).load("all")


def test_many_classes_take_the_memory_of_few(tmp_path):
    for i in range(60):
        (tmp_path / f"class_{i:02d}").mkdir()
        for j in range(3):
            (tmp_path / f"class_{i:02d}" / f"{j}.png").touch()
    examples = classify.benchmark(str(tmp_path)).load("all")
    assert {len(texts) for texts in examples.captions} == {60}
    assert len({id(texts) for texts in examples.captions}) == 60  # not one tuple per picture
    assert examples.kinds == ["all"] * 180  # nobody reads a table of sixty rows
    assert examples.captions[4][0] == "a photo of a class 01."


def test_a_folder_that_tensorflow_datasets_prepared(prepared):
    folder = prepared("array_record")
    benchmark = classify.benchmark(str(folder), templates=("{}",))
    assert (benchmark.name, set(benchmark.splits)) == ("labelled", {"train", "test", "unlabelled"})
    examples = benchmark.load("test")
    assert examples.captions == [("air plane", "dog"), ("dog", "air plane")] * 2
    images = examples.images([key for (key,) in examples.pictures], 16)
    np.testing.assert_array_equal(images[:, 0, 0, 0], [0, 10, 20, 30])
    assert benchmark.load("train").count == 6
    with pytest.raises(UserError, match="split unlabelled has no labels"):
        benchmark.load("unlabelled")


def test_a_folder_that_only_tensorflow_reads(prepared):
    folder = prepared("array_record")
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match='as tfrecord, .* again with file_format="array_record"'):
        classify.benchmark(str(folder))
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="is not as tensorflow-datasets prepares it"):
        classify.benchmark(str(folder))


def test_folders_and_templates_that_do_not_serve(tmp_path):
    with pytest.raises(UserError, match=r"templates are \('a photo',\); expected texts with one"):
        classify.benchmark(str(tmp_path), templates=("a photo",))
    with pytest.raises(UserError, match=r"templates are \(\); expected"):
        classify.benchmark(str(tmp_path), templates=())
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.jpg").touch()
    with pytest.raises(UserError, match="has 1 folders with pictures .* two or more classes"):
        classify.benchmark(str(tmp_path)).load("all")
