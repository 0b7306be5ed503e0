"""Adapters that `convert` reads, and folders of prompts: the same numbers, or one sentence."""

import contextlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dsd_jax import convert
from dsd_jax.conversion.adapter import check_adapter, to_prompts
from dsd_jax.conversion.adapter_files import read_adapter
from dsd_jax.conversion.adapter_names import parse_name
from dsd_jax.io.terminal import guarded_terminal
from dsd_jax.prompts import prompt_compatibility
from dsd_jax.prompts.lora_files import write_authors, write_diffusers
from dsd_jax.prompts.prompt_files import fingerprint, read_prompts, write_prompts
from dsd_jax.prompts.prompt_params import attention_shapes, init_lora, init_tokens
from tests.files import replace_by
from tests.mutations.mutate import (
    NUMBERS,
    ODD,
    count,
    dumped,
    garbled,
    generator,
    mutated,
    mutated_header,
    snapshot,
)
from tests.random_model import random_model

RANK = 2
PATTERNS = [
    {"to_q": 4}, {"(a+)+$": 4}, {"(.*)*": 1}, {"[": 1}, {".*.*.*": 2}, {"a{99999999}": 1}, {"": 3},
    {"to_k": float("nan")}, {"a" * 400: 1}, {"(?P<x>.)\\1": 1}, {"mid_block.*to_q": 6},
]  # fmt: skip
CONFIG = {
    "peft_type": "LORA", "r": RANK, "lora_alpha": 6, "use_rslora": False, "use_dora": False,
    "alpha_pattern": {}, "rank_pattern": {}, "target_modules": ["to_q", "to_k"],
}  # fmt: skip
ABOUT = {
    "weights": "tiny", "weights_digest": "0" * 64, "dtype": "float32",
    "recipe": {"methods": ["dsd"], "kinds": ["lora"], "rank": RANK}, "layers": ["a", "b"],
    "timesteps": [9, 509], "noises": 2, "data": {"name": "emoji"}, "shots_from": "shots",
    "shots": 8, "seed": 0, "kept_step": 60,
}  # fmt: skip


@pytest.fixture(scope="module")
def unet():
    return random_model().unet


@pytest.fixture(scope="module")
def lora(unet):
    rng = np.random.default_rng(0)
    lora = init_lora(unet, jax.random.key(0), RANK)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), lora)


@pytest.fixture(scope="module")
def peft(lora, tmp_path_factory):
    """A folder as PEFT writes it, and its tensors."""
    folder = tmp_path_factory.mktemp("peft")
    write_diffusers(folder, lora)
    tensors = load_file(folder / "pytorch_lora_weights.safetensors")
    shutil.rmtree(folder)
    folder.mkdir()
    tensors = {name.replace("unet.", "base_model.model."): x for name, x in tensors.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    return folder, tensors


def read(file: Path, shapes):
    adapter = read_adapter(file)
    check_adapter(adapter, shapes, "random")
    return to_prompts(adapter)["lora"]


def test_configs_of_adapters(peft, lora, unet, tmp_path, tried):
    folder = shutil.copytree(peft[0], tmp_path / "peft")
    file, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    shapes = attention_shapes(unet)
    rng = generator("adapter_config")
    values = [*ODD, *NUMBERS, *PATTERNS, "LORA", "LOHA"]
    for i in range(count(40)):
        content = {"lora_alpha": 6} if i % 9 == 0 else CONFIG | {"alpha_pattern": {}}
        content = mutated(rng, content, values)
        if i % 2:
            content |= {"alpha_pattern": rng.choice(PATTERNS)}
        config.write_text(dumped(content))
        found = tried(read, file, shapes)
        if found is not None and not content.get("alpha_pattern"):
            scale = content.get("lora_alpha", 8) / (
                RANK**0.5 if content.get("use_rslora") else RANK
            )
            for path, updates in lora.items():
                for name, update in updates.items():
                    up = found[path][name]["up"]
                    np.testing.assert_allclose(up, update["up"] * np.float32(scale), rtol=1e-6)


@pytest.mark.parametrize("form", ["header", "names", "pickle"])
def test_tensors_of_adapters(form, peft, lora, unet, tmp_path, tried):
    shapes = attention_shapes(unet)
    rng = generator(form)
    if form == "pickle":
        write_authors(tmp_path, lora)
        file = tmp_path / "pytorch_model.bin"
    else:
        file = shutil.copytree(peft[0], tmp_path / "peft") / "adapter_model.safetensors"
    content = file.read_bytes()
    for _ in range(count(20)):
        if form == "names":
            renamed = dict(peft[1])
            for name in rng.sample(sorted(renamed), rng.choice((1, 2))):
                other = garbled(rng, name.encode()).decode(errors="replace")
                renamed[rng.choice([other, name.replace("to_q", "to_k"), "alpha", ""])] = (
                    renamed.pop(name)
                )
            save_file(renamed, file)
        else:
            change = garbled if form == "pickle" else mutated_header
            file.write_bytes(change(rng, content))
        with np.errstate(all="ignore"):
            found = tried(read, file, rng.choice((shapes, None)))
        if found is None:
            continue
        if form == "pickle":  # a zip file has checksums
            jax.tree.map(np.testing.assert_array_equal, found, lora)
            continue
        expected = {parse_name(name): tensor for name, tensor in load_file(file).items()}
        for name, tensor in expected.items():
            if name.part == "down":
                leaf = found[name.path][name.projection]["down"]
                np.testing.assert_array_equal(leaf, np.float32(tensor).T)


def test_targets_of_convert(peft, tmp_path, tried, capsys):
    """Nothing but a new or empty folder is written to."""
    rng = generator("targets")
    home = tmp_path / "home"
    for _ in range(count(20)):
        home.mkdir()
        (home / "file").write_text("mine")
        (home / "full").mkdir()
        (home / "full" / "file").write_text("mine")
        (home / "empty").mkdir()
        (home / "link").symlink_to("nowhere")
        (home / "loop").symlink_to("loop")
        (home / "to-full").symlink_to("full")
        name = rng.choice([
            "new", "empty", "file", "full", "link", "loop", "to-full", "a" * 300, "a\0b", "a\nb",
            "", "\ud83d", "~nosuchuser", "caf\udce9", ".", "..",
        ])  # fmt: skip
        below = rng.choice(["", "", "/new", "/a/b/c", "/" + "a/" * 3000, "/file", "/."])
        target = f"{home}/{name}{below}"
        if rng.random() < 0.1:
            target = rng.choice(
                ["/proc/self/new", "gs://bucket/new", "", "/dev/null", "/proc/1/fd/9"]
            )
        arguments = [
            str(peft[0]),
            target,
            f"--to={rng.choice(['prompts', 'diffusers', 'authors'])}",
        ]
        before = snapshot(home)
        with guarded_terminal():
            done = tried(lambda a: (convert.main(a), True), arguments)
        after = snapshot(home)
        assert {key: after[key] for key in before} == before
        created = [home / path for path in after.keys() - before.keys()]
        assert done or all(f"{target}/".startswith(f"{path}/") for path in created)
        capsys.readouterr()
        shutil.rmtree(home)


@pytest.fixture
def prompts(unet, lora, tmp_path):
    cross = next(path for path in lora if path.endswith("attn2"))
    tree = {
        "lora": lora,
        "tokens": init_tokens(unet, jax.random.key(1), count=2),
        "weights": {"dsd": {"lse": {cross: np.zeros(2)}, "timesteps": np.ones(4), "error": 0.5}},
    }
    tree = jax.tree.map(lambda x: np.asarray(x, np.float32), tree)
    write_prompts(tmp_path / "prompts", tree, ABOUT)
    return tmp_path / "prompts", tree


def test_values_in_about_prompts(prompts, tried):
    folder, _ = prompts
    rng = generator("about")
    for _ in range(count(25)):
        content = mutated(rng, ABOUT, [*ODD, *NUMBERS, "attention", [89, 339, 589, 839], [999, 0]])
        (folder / "prompts.json").write_text(dumped(content))
        about = tried(lambda: prompt_compatibility.metadata_of(folder))
        if about is None:
            continue
        assert about.stated() == content
        settings = tried(lambda: prompt_compatibility.score_settings(folder, None, None))
        if settings is not None and about.timesteps:
            assert prompt_compatibility.timesteps_asked(about.timesteps) == settings[1]


def test_tensors_of_prompts(prompts, unet, tmp_path, tried):
    folder, tree = prompts
    file = folder / "prompts.safetensors"
    sealed = file.read_bytes()
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(file), bare)
    rng = generator("prompts")
    for i in range(count(40)):
        has_digest = i % 2
        content = sealed if has_digest else bare.read_bytes()
        file.write_bytes((garbled if i % 4 > 1 else mutated_header)(rng, content))
        found = tried(lambda: read_prompts(folder, unet))
        fingerprint(folder)
        if found is None:
            continue
        if has_digest and b'"digest"' in file.read_bytes()[:20_000]:
            jax.tree.map(np.testing.assert_array_equal, found, tree)
        else:
            tensors = load_file(file)
            assert len(jax.tree.leaves(found)) == len(tensors)


def test_what_are_no_prompts(prompts, unet, tried):
    folder, _ = prompts
    rng = generator("no files")
    for _ in range(count(12)):
        copied = shutil.copytree(folder, folder.with_name("copied"))
        name = rng.choice(("prompts.json", "prompts.safetensors"))
        replace_by(copied / name, rng.choice(("fifo", "folder", "link", "loop")))
        metadata = tried(prompt_compatibility.metadata_of, copied)
        params = tried(read_prompts, copied, unet)
        tried(fingerprint, copied)
        assert (metadata if name == "prompts.json" else params) is None
        with contextlib.suppress(OSError):
            shutil.rmtree(copied)
