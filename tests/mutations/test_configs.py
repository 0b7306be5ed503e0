"""Config files and what is set in them: the values that were typed, or one sentence, at once."""

import ast
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from dsd_jax.cli import RunParser
from dsd_jax.config.config_files import check, load_config, read_config
from dsd_jax.config.fields import known_fields
from dsd_jax.config.pretrain_config import kind_of
from dsd_jax.config.run_config import RunConfig
from tests.mutations.mutate import NUMBERS, ODD, count, garbled, generator, mutated

CONFIGS = Path(__file__).parents[2] / "configs"
SPECS = [
    f"{CONFIGS / name}"
    for name in (
        "emoji.py", "emoji.py:full", "comvg.py", "vqa.py", "own.py", "classify.py", "refcocog.py",
        "winoground.py", "full_size.py", "pretrain_tiny.py", "pretrain_clip.py",
    )
]  # fmt: skip
TEXTS = [
    "", " ", "0", "-1", "1", "2", "7", "1e400", "-inf", "nan", "NaN", "1e-400", "1.0", "1_0",
    "\u0663", "\u00b2", "9" * 30, "9" * 5000, "1" + "0" * 9, "true", "no", "None", "null", "()",
    "[]", "{}", ",", "1,", "1,2", "0.5,0.5", "1,1", "nan,1", "((", "(1, (2,))", "[[1]]", "dsd",
    "dsd,dsd", "dsd@", "dsd@7", "dsd@0", "dsd@-1", "dsd@1e9", "dsd@7>3@2", "dsd@7>99@2", "@", ">",
    "attention@10>5@3", "a" * 300, "a/" * 3000, "a\0b", "a\nb", "\x1b[2J", "\ud83d", "\u00e9",
    "{} {", "{0.__class__}", "{:>99999999}", "~nosuchuser", "~", "/dev/zero", "../../etc/passwd",
    "gs://", "https://x", "lora", "adapted", "validation", "test", "bfloat16", "tiny", "__import__",
    "'", '"', "[" * 500, "-" * 500 + "1", "9" * 400 + ".0",
]  # fmt: skip


def kind(spec: str):
    """What checks a config."""
    return kind_of if "pretrain" in spec else RunConfig


def plain(value):
    return json.loads(json.dumps(value, allow_nan=False))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: Path(spec).name)
def test_what_is_typed(spec, tmp_path, tried):
    parser = RunParser("train", "Learns.", "example", kind=kind(spec))
    values = load_config(spec).to_dict()
    fields = [*known_fields(kind(spec), values), "no", "learn", "data", "", ".", "a.b", "learn.x.y"]
    rng = generator(Path(spec).name)
    for i in range(count(20)):
        overrides = [
            (rng.choice(fields), rng.choice(TEXTS)) for _ in range(rng.choice((1, 1, 1, 2)))
        ]
        arguments = [f"--config={spec}", f"--workdir={tmp_path / str(i)}"]
        arguments += [f"--config.{field}={text}" for field, text in overrides]
        flags = tried(parser.parse_args, arguments)
        if flags is None:
            assert not (tmp_path / str(i)).exists()
            continue
        found = plain(flags.config.model_dump(mode="json"))  # finite, and JSON
        field, text = overrides[-1]
        for name in field.split("."):
            found = found[name]
        assert said(found, text), (field, text, found)


def said(found, text: str) -> bool:
    """Whether a text may mean a value."""
    if isinstance(found, bool):
        return text.lower() in (("true", "yes", "1") if found else ("false", "no", "0"))
    if isinstance(found, int | float):
        return float(text) == found
    if found is None:
        return text == "None"
    if isinstance(found, list):
        items = [item.strip(" ()[]'\"") for item in text.split(",")]
        items = [item for item in items if item]
        return len(items) == len(found) or found == list(ast.literal_eval(text))
    return found == text


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: Path(spec).name)
def test_values_in_configs(spec, tried):
    content = load_config(spec).to_dict()
    rng = generator(Path(spec).name)
    for _ in range(count(20)):
        changed = mutated(rng, plain(content), [*ODD, *NUMBERS])
        found = tried(lambda values: check(kind(spec), ConfigDict(values), spec), changed)
        if found is not None:
            plain(found.model_dump(mode="json"))


def test_bytes_of_config_files(tmp_path, tried):
    file = tmp_path / "config.py"
    content = (CONFIGS / "own.py").read_bytes()
    lines = [
        "import sys; sys.exit(3)", "raise SystemExit", "1/0", "while",
        "get_config = 5", "def get_config(): return {}", "def get_config(a, b): return a",
        "raise Exception('a\\nb' * 999)", "raise RecursionError", "def get_config(): get_config()",
        "from ml_collections import ConfigDict\nget_config = lambda: ConfigDict({1: 2})",
        "from ml_collections import ConfigDict\nget_config = lambda: ConfigDict({'a': object()})",
        "from ml_collections import ConfigDict\nget_config = ConfigDict",
        "import no_such_module", "assert False", "raise UnicodeDecodeError('a', b'', 0, 1, '')",
    ]  # fmt: skip
    rng = generator("bytes of configs")
    for i in range(count(30)):
        changed = garbled(rng, content)
        if i % 2:
            changed = rng.choice(lines).encode() + rng.choice([b"", b"\n", b"\n" + content])
        file.write_bytes(changed)
        spec = rng.choice([f"{file}", f"{file}:x", f"{file}:", f"{file}: "])
        found = tried(read_config, RunConfig, spec, ())
        if found is not None:
            plain(found.model_dump(mode="json"))


def test_names_of_config_files(tmp_path, tried):
    own = CONFIGS / "own.py"
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "link.py").symlink_to("nowhere.py")
    (tmp_path / "loop.py").symlink_to("loop.py")
    rng = generator("names")
    for _ in range(count(15)):
        name = rng.choice([
            str(own), f"{own}:", f"{own}:fulll", f"{CONFIGS}/emoji.py:fulll",
            f"{CONFIGS}/comvg.py:x", f"{CONFIGS}", f"{own}c", str(own).upper(), *TEXTS,
            *(str(tmp_path / f"{one}.py") for one in ("folder", "link", "loop", "no")),
        ])  # fmt: skip
        found = tried(read_config, RunConfig, name, ())
        assert found is None or name in (str(own), f"{own}:")
