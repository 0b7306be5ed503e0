"""The command: what a user types, what is written, what is said."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from dsd_jax import load
from dsd_jax.cli import run_command
from dsd_jax.convert import main
from dsd_jax.errors import UserError
from dsd_jax.models.components import UNET
from dsd_jax.models.params import weights_digest
from dsd_jax.prompts.prompt_files import read_metadata, read_prompts, write_prompts
from dsd_jax.prompts.prompt_params import init_lora, init_tokens
from dsd_jax.tensor_files import pickle_file
from dsd_jax.weights.component_files import read_config
from dsd_jax.weights.model_folder import BUNDLED

ROOT = Path(__file__).parents[1]
LORA_FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def config():
    return read_config(BUNDLED, UNET)


@pytest.fixture(scope="module")
def lora(config):
    rng = np.random.default_rng(0)
    lora = init_lora(config, jax.random.key(0), 2, "mid_block")
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), lora)


@pytest.fixture
def prompts(lora, tmp_path):
    write_prompts(tmp_path / "prompts", {"lora": lora}, {"weights": "tiny"})
    return str(tmp_path / "prompts")


def test_prompts_to_diffusers_and_back(prompts, lora, config, tmp_path, capsys):
    out, back = str(tmp_path / "out"), str(tmp_path / "back")
    main([prompts, out])
    said = f'Wrote {out}: 16 tensors of rank 2; use: pipeline.load_lora_weights("{out}")\n'
    assert capsys.readouterr() == (said, "")
    assert [file.name for file in Path(out).iterdir()] == [LORA_FILE]
    main([f"{out}/{LORA_FILE}", back, "--weights=tiny"])
    said = f"Wrote {back}: 16 tensors of rank 2, all of which fit tiny; use: --prompts={back}\n"
    assert capsys.readouterr() == (said, "")
    jax.tree.map(np.testing.assert_array_equal, read_prompts(back, config), {"lora": lora})
    assert read_metadata(back).stated() == {"from": f"{out}/{LORA_FILE}", "weights": "tiny"}


def test_the_authors_adapter(golden_folder, tmp_path, capsys):
    folder = golden_folder("tiny-sd15")
    main([str(folder / "lora"), str(tmp_path / "a"), "--weights", str(folder)])
    assert "256 tensors of rank 4, all of which fit" in capsys.readouterr().out
    main([str(folder / "lora" / "pytorch_model.bin"), str(tmp_path / "b"), "--to=diffusers"])
    main([str(tmp_path / "a"), str(tmp_path / "c")])
    assert (tmp_path / "b" / LORA_FILE).read_bytes() == (tmp_path / "c" / LORA_FILE).read_bytes()
    main([str(tmp_path / "a"), str(tmp_path / "d"), "--to=authors"])
    file = tmp_path / "d" / "pytorch_model.bin"
    said = f'{tmp_path}/d: 256 tensors of rank 4; use: torch.load("{file}")\n'
    assert capsys.readouterr().out.endswith(said)
    expected = pickle_file.read(folder / "lora" / "pytorch_model.bin")
    found = pickle_file.read(file)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_models(tmp_path, capsys):
    main(["tiny", str(tmp_path / "flax")])
    main([str(tmp_path / "flax"), str(tmp_path / "torch")])
    main([str(tmp_path / "flax"), str(tmp_path / "again"), "--to", "msgpack"])
    lines = capsys.readouterr().out.splitlines()
    endings = [(f"{tmp_path}/{name}", form) for name, form in
               (("flax", "msgpack"), ("torch", "safetensors"), ("again", "msgpack"))]  # fmt: skip
    assert lines == [f"Wrote {x}: 526 tensors in float16 as {form}" for x, form in endings]
    expected = weights_digest(load("tiny").params)
    for folder, _ in endings:
        assert weights_digest(load(folder).params) == expected


def test_a_model_with_other_parts(golden_folder, tmp_path, capsys):
    source = shutil.copytree(golden_folder("tiny-sd15"), tmp_path / "source")
    (source / "safety_checker").mkdir()
    (source / "safety_checker" / "model.safetensors").write_bytes(b"")
    index = json.loads((source / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (source / "model_index.json").write_text(json.dumps(index))
    main([str(source), str(tmp_path / "a")])
    assert capsys.readouterr().out.endswith(" as msgpack; left behind: safety_checker\n")


def test_kinds_that_diffusers_lacks(lora, config, tmp_path, capsys):
    others = {
        "tokens": init_tokens(config, jax.random.key(0)),
        "weights": {"dsd": {"error": np.zeros(())}},
    }
    write_prompts(tmp_path / "both", {"lora": lora} | others, {})
    main([str(tmp_path / "both"), str(tmp_path / "out")])
    said = capsys.readouterr()
    assert said.out.startswith(f"Wrote {tmp_path}/out: 16 tensors")
    assert re.fullmatch("warning: tokens and weights of .*/both cannot be .*: skipped\n", said.err)
    write_prompts(tmp_path / "others", others, {})
    with pytest.raises(UserError, match="others has no LoRA but tokens, weights"):
        main([str(tmp_path / "others"), str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


def test_nothing_is_overwritten(prompts, tmp_path):
    (tmp_path / "empty").mkdir()
    main([prompts, str(tmp_path / "empty")])
    for target in (tmp_path / "empty", prompts, tmp_path / "prompts" / "prompts.json"):
        with pytest.raises(UserError, match=f"TO={target} is there already; name a folder that"):
            main([prompts, str(target)])
    with pytest.raises(UserError, match="TO=gs://bucket/x: addresses are not understood"):
        main([prompts, "gs://bucket/x"])


@pytest.mark.parametrize("to", ["prompts", "msgpack", "safetensors"])
def test_forms_that_do_not_go_together(prompts, tmp_path, to):
    message = f"--to={to} does not go with .*/prompts, which is of the kind 'prompts' and can"
    with pytest.raises(UserError, match=message):
        main([prompts, str(tmp_path / "x"), f"--to={to}"])
    with pytest.raises(UserError, match="can become msgpack or safetensors"):
        main(["tiny", str(tmp_path / "x"), "--to=diffusers"])
    with pytest.raises(UserError, match="--weights has no use for tiny, which is a model itself"):
        main(["tiny", str(tmp_path / "x"), "--weights=tiny"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "x"], "There is no model at 'nothing'"),
        (["adapter.bin", "x"], "There is nothing at 'adapter.bin'"),
        (["README.md", "x"], "README.md is a text file and not a file that torch.save writes"),
        (["tests", "x"], "tests holds .*; expected a prompts folder"),
        (["x"], "the following arguments are required: TO"),
        (["tiny", "x", "--to=onnx"], "argument --to: invalid choice: 'onnx'"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ending:
        run_command(main, arguments)
    out, err = capsys.readouterr()
    assert ending.value.code == 2 and out == ""
    assert err.count("\n") == 1 and re.match(f"error: .*{message}", err)


def test_help_needs_no_jax():
    program = "import sys, dsd_jax.convert as c; c.main(['--help'])"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert not re.search(r"\| +(jax|flax|transformers)$", done.stderr, re.MULTILINE)
    assert "python -m dsd_jax.convert tiny runs/tiny-flax" in done.stdout
    for word in ("FROM", "TO", "--weights", "--to {prompts,diffusers,authors,safetensors,msgpack}"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("prompts/prompts.json/x", "lies below .*prompts/prompts.json, a file; name another"),
        ("x" * 300, "cannot be written .File name too long.; name another folder"),
        ("link", "TO=.*/link is there already; name a folder that is new or empty"),
        ("a\0b", "has a NUL in it"),
        ("/proc/dsd/x", "/proc/dsd/x cannot be written .*; name another folder"),
    ],
)
@pytest.mark.parametrize("to", ["diffusers", "authors"])
def test_targets_that_can_not_be(prompts, tmp_path, target, message, to):
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match=message):
        main([prompts, str(tmp_path / target), f"--to={to}"])


def test_prompts_that_do_not_go_together(tmp_path):
    path = "mid_block.attentions.0.transformer_blocks.0.attn1"
    write_prompts(tmp_path / "half", {"lora": {path: {"to_q": {"down": np.zeros((8, 2))}}}}, {})
    with pytest.raises(UserError, match="have down in lora for .*, expected down and up"):
        main([str(tmp_path / "half"), str(tmp_path / "out")])
