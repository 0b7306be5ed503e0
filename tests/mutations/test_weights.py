"""Models' folders: refused in one sentence, or read as the files say, with keys that tell changes.

Everything is checked that `load` checks before it reads numbers.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from flax import traverse_util
from flax.serialization import msgpack_restore
from safetensors.numpy import load_file

from dsd_jax.clip import clip_files
from dsd_jax.clip.clip_files import COMPONENT, PREPROCESSOR, load_clip, read_normalizer
from dsd_jax.models.components import components
from dsd_jax.weights.component_files import read_config
from dsd_jax.weights.model_folder import find, read_index, read_schedule, subfolders
from dsd_jax.weights.model_loading import _check_one_model, fitting
from dsd_jax.weights.model_saving import save
from dsd_jax.weights.tokenizer_files import read_tokenizer
from tests.files import replace_by
from tests.mutations.mutate import (
    NUMBERS,
    ODD,
    count,
    dumped,
    garbled,
    generator,
    header_of,
    mutated,
    mutated_header,
    with_header,
)
from tests.random_model import random_model

CONFIGS = ["unet", "vae", "text_encoder", "text_encoder_2", "scheduler"]
WORDS = [
    "gelu",
    "quick_gelu",
    "linear",
    "scaled_linear",
    "v_prediction",
    "DownBlock2D",
    "text_time",
]
VALUES = [*ODD, *NUMBERS, *WORDS, [4, 4], [8, 16, 16], {"shape": [1]}]
TOKENIZER = ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """{family: (folder, model)} of narrow models, with a file of tensors each part."""
    found = {}
    for family in ("sd", "xl"):
        folder = tmp_path_factory.mktemp(family)
        model = random_model(xl=family == "xl")
        save(model, folder)
        found[family] = folder, model
    return found


def checked(folder: Path, tokenizers=None):
    """What `load` knows of a model before it reads numbers: its configs, and where numbers are."""
    where = find(folder)
    ours = components(subfolders(where))
    configs = {part.key: read_config(where, part) for part in ours}
    schedule = read_schedule(where)
    tokenizers = tokenizers or {
        part.tokenizer: read_tokenizer(where / part.tokenizer) for part in ours if part.tokenizer
    }
    _check_one_model(where, configs, tokenizers)
    zero_empty = read_index(where).force_zeros_for_empty_prompt
    leaves = fitting(where, {part: configs[part.key] for part in ours})
    return configs, schedule, zero_empty, leaves, tokenizers


def config_file(folder: Path, part: str) -> Path:
    return folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")


def identity(model) -> tuple:
    """All that names entries of the cache and kept scores beside the weights."""
    return (
        model.image_identity()[1], model.text_identity()[1], repr(model.unet), repr(model.schedule)
    )  # fmt: skip


@pytest.mark.parametrize("part", [*CONFIGS, "model_index.json"])
def test_values_in_configs(part, models, tmp_path, tried):
    source, model = models["xl"]
    folder = shutil.copytree(source, tmp_path / "model")
    tokenizers = {"tokenizer": model.tokenizer, "tokenizer_2": model.tokenizer_2}
    before = checked(folder, tokenizers)
    file = folder / part if part.endswith(".json") else config_file(folder, part)
    content = json.loads(file.read_text())
    rng = generator(part)
    for _ in range(count(20)):
        file.write_text(dumped(mutated(rng, content, VALUES)))
        found = tried(lambda: checked(folder, tokenizers))
        if found is not None and found[:3] != before[:3]:
            configs, schedule, zero_empty, *_ = found
            changed = dataclasses.replace(
                model, **configs, schedule=schedule, zero_empty=bool(zero_empty)
            )
            assert identity(changed) != identity(model)


def test_headers_of_safetensors(models, tmp_path, tried):
    source, model = models["sd"]
    folder = shutil.copytree(source, tmp_path / "model")
    tokenizers = {"tokenizer": model.tokenizer}
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    content = file.read_bytes()
    rng = generator("headers")
    for i in range(count(40)):
        header, rest = header_of(content)
        text = json.dumps(header).encode()
        garble = i % 4 == 0
        file.write_bytes(
            with_header(garbled(rng, text), rest) if garble else mutated_header(rng, content)
        )
        found = tried(lambda: checked(folder, tokenizers))
        if found is not None:  # the library agrees on every number
            tensors = load_file(file)
            for leaf in found[3]["vae"]:
                stored = leaf.stored.read()
                np.testing.assert_array_equal(stored, tensors[leaf.stored.name])


@pytest.mark.parametrize("name", ["config.json", PREPROCESSOR])
def test_values_in_configs_of_clips(name, tmp_path, tried):
    clip = load_clip("tiny-clip")
    folder = shutil.copytree(clip_files.BUNDLED, tmp_path / "clip")

    def checked_clip():
        config, normalize = read_config(folder, COMPONENT), read_normalizer(folder / PREPROCESSOR)
        fitting(folder, {COMPONENT: config})
        return dataclasses.replace(clip, config=config, normalize=normalize)

    content = json.loads((folder / name).read_text())
    rng = generator(name)
    for _ in range(count(12)):
        (folder / name).write_text(dumped(mutated(rng, content, VALUES)))
        found = tried(checked_clip)
        if found is not None:
            assert np.isfinite([*found.normalize.mean, *found.normalize.std]).all()
            same = (found.config, found.normalize) == (clip.config, clip.normalize)
            assert same == (found.settings() == clip.settings())


def test_bytes_of_msgpack(models, tmp_path, tried):
    model = models["sd"][1]
    save(model, tmp_path, format="msgpack")
    file = tmp_path / "vae" / "diffusion_flax_model.msgpack"
    content = file.read_bytes()
    rng = generator("msgpack")
    for i in range(count(20)):
        place = rng.choice((0, 0, rng.randrange(len(content))))
        part = content[place : place + rng.choice((3, 200))]
        changed = bytes([rng.randrange(256)]) + part[1:] if i % 2 else garbled(rng, part)
        file.write_bytes(content[:place] + changed + content[place + len(part) :])
        found = tried(checked, tmp_path, {"tokenizer": model.tokenizer})
        if found is not None:  # the library agrees on every number
            tensors = traverse_util.flatten_dict(msgpack_restore(file.read_bytes()), sep="/")
            for leaf in found[3]["vae"]:
                np.testing.assert_array_equal(leaf.stored.read(), tensors[leaf.stored.name])


def test_indices_of_shards(models, tmp_path, tried):
    source, model = models["sd"]
    folder = shutil.copytree(source, tmp_path / "model")
    tokenizers = {"tokenizer": model.tokenizer}
    whole = folder / "vae" / "diffusion_pytorch_model.safetensors"
    shard = whole.with_name("diffusion_pytorch_model-00001-of-00001.safetensors")
    names = sorted(header_of(whole.read_bytes())[0].keys() - {"__metadata__"})
    whole.rename(shard)
    index = whole.with_name("diffusion_pytorch_model.safetensors.index.json")
    content = {"metadata": {}, "weight_map": dict.fromkeys(names[:5], shard.name)}
    rng = generator("indices")
    for _ in range(count(20)):
        values = [*VALUES, shard.name, f"../vae/{shard.name}", "config.json", ".", shard.name * 10]
        index.write_text(dumped(mutated(rng, content, values)))
        found = tried(lambda: checked(folder, tokenizers))
        if found is not None:
            assert {leaf.stored.file.path for leaf in found[3]["vae"]} == {shard}


@pytest.mark.parametrize("name", TOKENIZER)
def test_files_of_tokenizers(name, models, tmp_path, tried):
    """The same tokens, or other ones with another key."""
    source, model = models["sd"]
    folder = shutil.copytree(source / "tokenizer", tmp_path / "tokenizer")
    file = folder / name
    content = file.read_bytes()
    rng = generator(name)
    texts = ["two cats", "a photo of a dog, by night"]
    expected = [model.tokenizer(text)["input_ids"] for text in texts]
    for i in range(count(6)):
        if name.endswith(".json") and i % 2:
            changed = dumped(mutated(rng, json.loads(content), VALUES)).encode()
        else:
            changed = garbled(rng, content)
        file.write_bytes(changed)
        tokenizer = tried(lambda: read_tokenizer(folder))
        if tokenizer is not None:
            found = [tokenizer(text)["input_ids"] for text in texts]
            other = dataclasses.replace(model, tokenizer=tokenizer)
            assert found == expected or identity(other) != identity(model)


def test_what_is_no_file(models, tmp_path, tried):
    source, model = models["sd"]
    names = [str(path.relative_to(source)) for path in sorted(source.rglob("*")) if path.is_file()]
    rng = generator("files")
    for _ in range(count(20)):
        folder = shutil.copytree(source, tmp_path / "model")
        place = folder / rng.choice(names)
        kind = rng.choice(("fifo", "folder", "link", "loop", "empty", "lfs", "unreadable", "cut"))
        if kind in ("fifo", "folder", "link", "loop"):
            replace_by(place, kind)
        elif kind == "unreadable":
            place.unlink()
            place.symlink_to("/proc/self/mem")
        else:
            cut = place.read_bytes()[: rng.randrange(place.stat().st_size)]
            lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
            place.write_bytes({"empty": b"", "lfs": lfs, "cut": cut}[kind])
        tried(checked, folder)
        shutil.rmtree(folder)
    assert tried.refused
