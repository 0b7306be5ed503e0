"""Configs are checked before anything is loaded or written; a mistake is one sentence."""

from pathlib import Path
from typing import get_args

import pytest
from ml_collections import ConfigDict

from dsd_jax.cli import RunParser
from dsd_jax.config import score_spec
from dsd_jax.config.config_files import check, load_config
from dsd_jax.config.fields import known_fields
from dsd_jax.config.pretrain_config import kind_of
from dsd_jax.config.recipes import KINDS, ClipRecipe, Kind, Loss, MethodName, Remat
from dsd_jax.config.run_config import RunConfig
from dsd_jax.errors import UserError
from dsd_jax.models.block_policy import REMAT
from dsd_jax.prompts import prompt_params
from dsd_jax.training import losses

HUGE = "9" * 400
LONG = "a" * 300


def refusal(tmp_path: Path, config: str, *overrides: str, kind=RunConfig) -> str:
    """The message with which a command refuses a config; nothing has been written by then."""
    parser = RunParser("train", "Learns.", "example", kind=kind)
    workdir = tmp_path / "run"
    arguments = [f"--config={config}", f"--workdir={workdir}"]
    with pytest.raises(UserError) as refused:
        parser.parse_args([*arguments, *(f"--config.{text}" for text in overrides)])
    assert not workdir.exists()
    message = str(refused.value)
    assert "\n" not in message and len(message) < 2000
    return message


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("seed=-1", "0 or more"),
        ("seed=4294967296", "2000000 or less"),
        ("seed=99999999999999999999", "2000000 or less"),
        ("seeds=0", "1 or more"),
        ("seeds=1000000000", "1000 or less"),
        ("noises=0", "1 or more"),
        ("noises=1001", "1000 or less"),
        ("timesteps=0", "1 or more"),
        ("timesteps=1001", "1000 or less"),
        ("per_kind=1", "2 or more"),
        ("fsdp=0", "1 or more"),
        ("cpu_devices=0", "1 to 1024, or -1 for as many as there are"),
        ("cpu_devices=100000", "1 to 1024, or -1"),
        ("dtype=int8", "'float32', 'bfloat16' or 'float16'"),
        ("weights=", "at least 1 characters"),
        ("splits=()", "at least 1 entries"),
        ("methods=()", "at least 1 entries"),
        ("shots=()", "at least 1 entries"),
        ("shots_from=", "at least 1 characters"),
        ("learn.lora.steps=0", "1 or more"),
        ("learn.lora.steps=1000000000", "10000000 or less"),
        ("learn.lora.batch=0", "1 or more"),
        ("learn.lora.timesteps=0", "1 or more"),
        ("learn.lora.timesteps=1001", "1000 or less"),
        ("learn.lora.learning_rate=nan", "a finite number"),
        ("learn.lora.learning_rate=inf", "a finite number"),
        ("learn.lora.learning_rate=-1", "0 or more"),
        ("learn.lora.learning_rate=1e30", "1000 or less"),
        ("learn.lora.weight_decay=-inf", "a finite number"),
        ("learn.lora.margin=nan", "a finite number"),
        ("learn.lora.denoise=1e38", "1000000 or less"),
        ("learn.lora.rank=0", "1 or more"),
        ("learn.lora.rank=1000000000", "4096 or less"),
        ("learn.lora.tokens=0", "1 or more"),
        ("learn.lora.accumulate=0", "1 or more"),
        ("learn.lora.accumulate=9", "at most the batch, which is 8"),
        ("learn.lora.remat=all", "'nothing', 'products' or 'blocks'"),
        ("learn.lora.loss=hing", "'cross_entropy' or 'hinge'"),
        ("learn.lora.kinds=()", "at least 1 entries"),
        ("learn.lora.methods=()", "at least 1 entries"),
        ("learn.lora.ridges=()", "at least 1 entries"),
        ("learn.lora.held_out=0", "more than 0"),
        ("learn.lora.held_out=1", "less than 1"),
        ("learn.lora.held_out=nan", "a finite number"),
        ("learn.lora.check_every=0", "1 or more"),
        ("learn.lora.patience=0", "1 or more"),
        ("tune.kind=all", "'full' or 'projections'"),
        ("tune.steps=0", "1 or more"),
        ("tune.batch=0", "1 or more"),
        ("tune.contrast=-1", "0 or more"),
        ("tune.learning_rate=nan", "a finite number"),
        ("tune.held_out=1.0", "less than 1"),
        ("data.name=coco", "one of emoji, comvg, refcocog, vqa, winoground, compositional"),
    ],
)
def test_a_value_out_of_range(tmp_path, setting, expected):
    """The argument, the field, its value, what was expected."""
    message = refusal(tmp_path, "configs/emoji.py", setting)
    field = setting.partition("=")[0]
    assert message.startswith(f"--config.{setting}: {field} is ")
    assert f", expected {expected}" in message


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("splits=a,b,a", "splits has 'a' twice, expected different ones; drop one"),
        ("methods=dsd,clip", "methods can't be read: method 'clip' is unknown; expected one of"),
        ("methods=dsd,dsd", "methods has 'dsd' twice"),
        ("methods=noise@0", "methods can't be read: timesteps is 0"),
        ("methods=noise@10>5@5", "every round needs more timesteps than the one before"),
        ("recipes=lora,prayer", "recipes names 'prayer', expected some of adapted, lora, weights"),
        ("recipes=lora,lora", "recipes has 'lora' twice"),
        ("learn.lora.kinds=lara", "learn.lora.kinds.0 is 'lara', expected 'lora', 'tokens' or"),
        ("learn.lora.methods=dsd,clip", "learn.lora.methods.1 is 'clip', expected 'attention', "),
        ("learn.lora.ridges=1,nan", "learn.lora.ridges.1 is nan, expected a finite number"),
        ("learn.lora.ridges=0", "learn.lora.ridges.0 is 0, expected more than 0"),
        ("shots=16,nan", "shots.1 is nan, expected a number of items (2 or more), or a fraction"),
        ("shots=1", "shots.0 is 1, expected a number of items (2 or more)"),
        ("shots=0.0", "shots.0 is 0.0, expected a number of items"),
        ("shots=2.5", "shots.0 is 2.5, expected a number of items"),
        ("shots=-3", "shots.0 is -3, expected a number of items"),
        ("shots=1e400", "shots.0 is inf, expected a number of items"),
        (f"weights={LONG}", "weights has 300 bytes, expected at most 255 in each name of a path"),
        (f"cache=/tmp/{LONG}/x", "cache has 307 bytes, expected at most 255 in each name"),
        ("clip=" + "a/" * 3000, "clip has 6000 bytes, expected at most 255 in each name of a path"),
        ("cache=~nosuchuser/x", "cache starts with ~nosuchuser, but no such user has a home"),
        (f"splits={LONG}", "splits.0 is 'aaa"),
        (f"shots_from={LONG}", "expected at most 200 characters"),
        ("learn.lora.stepps=3", "no field 'learn.lora.stepps'; did you mean learn.lora.steps?"),
        ("learn.lora=3", "--config.learn.lora is a group of fields; set one of learn.lora.acc"),
        ("timesteps=1.5", "--config.timesteps=1.5: expected int; the default is "),
        ("per_kind=" + "[" * 9999, "[[[...: expected int; the default is "),
        ("timesteps=" + "9" * 9999, "999...: expected int; the default is "),
        ("seeds=3\n4", "--config.seeds='3\\n4': expected int"),
    ],
)
def test_a_value_that_is_none(tmp_path, setting, message):
    assert message in refusal(tmp_path, "configs/emoji.py", setting)


@pytest.mark.parametrize(
    ("config", "setting", "message"),
    [
        ("own", "per_kind=nan", "per_kind is 'nan', expected a whole number"),
        ("own", "per_kind=2.5", "per_kind is 2.5, expected a whole number"),
        ("own", "per_kind=True", "per_kind is True, expected a whole number"),
        ("own", "per_kind=((((", "per_kind is '((((', expected a whole number"),
        ("own", "data.candidates=1", "data.candidates is 1, expected 2 or more"),
        ("own", "data.candidates=1000000000", "expected 10000 or less"),
        ("own", "data.wrong=none", "data.wrong is 'none', expected 'given', 'captions' or"),
        ("own", "data.seed=-1", "data.seed is -1, expected 0 or more"),
        ("own", "data.split_seed=4294967296", "data.split_seed is 4294967296, expected less than"),
        ("own", "data.shots_part=nan", "data.shots_part is nan, expected a finite number"),
        ("own", "data.shots_part=-1", "data.shots_part is -1.0, expected 0 or more"),
        ("own", "data.shots_part=1.0", "data.shots_part is 1.0, expected a part (less than 1) or"),
        ("own", "data.validation_part=1.5", "data.validation_part is 1.5, expected a part (less"),
        ("own", "data.split_rule=fair", "data.split_rule is 'fair', expected 'official', 'apart'"),
        ("own", "data.fit=pad", "data.fit is 'pad', expected 'stretch' or 'crop'"),
        ("own", "data.damaged=no", "data.damaged is 'no', expected 'stop' or 'skip'"),
        ("own", "data.prepared_size=0", "data.prepared_size is 0, expected 8 or more"),
        ("own", "data.prepared_size=1000000", "expected 9000 or less"),
        ("own", "data.folder=~nosuchuser/x", "data.folder starts with ~nosuchuser, but no such"),
        ("own", f"data.folder={LONG}", "data.folder has 300 bytes, expected at most 255"),
        ("own", "data.made=maybe", "--config.data.made=maybe: expected bool"),
        ("comvg", "data.csv=", "data.csv is '', expected at least 1 characters"),
        ("refcocog", "data.split_by=me", "data.split_by is 'me', expected 'umd' or 'google'"),
        ("vqa", "data.form=none", "data.form is 'none', expected 'official' or 'authors'"),
        ("winoground.py:cola", "data.layout=x", "data.layout is 'x', expected 'sugarcrepe', "),
        ("classify", "data.templates=a cat", "data.templates has 'a cat', expected texts with"),
        ("classify", "data.templates={} {}", "data.templates has '{} {}', expected texts with one"),
        ("classify", "data.templates={x} {}", "data.templates has '{x} {}', expected texts with"),
    ],
)
def test_a_benchmarks_value_that_is_none(tmp_path, config, setting, message):
    file = f"configs/{config}" if ".py" in config else f"configs/{config}.py"
    said = refusal(tmp_path, file, setting)
    assert said.startswith(f"--config.{setting}"[:80]) and message in said


@pytest.mark.parametrize(
    ("config", "setting", "message"),
    [
        ("tiny", "model=gan", "model is 'gan', expected one of stable-diffusion, clip"),
        ("tiny", "seed=-1", "seed is -1, expected 0 or more"),
        ("tiny", "vae.latent_channels=0", "vae.latent_channels is 0, expected 1 or more"),
        ("tiny", "vae.latent_channels=193", "vae.latent_channels is 193, expected at most 192"),
        ("tiny", "vae.norm_num_groups=5", "is 5, expected a divisor of all channels, 16 too"),
        ("tiny", "vae.block_out_channels=()", "expected at least 1 entries"),
        ("tiny", "vae.block_out_channels=8,8.5", "vae.block_out_channels.1 is 8.5, expected a wh"),
        ("tiny", "vae.encoder_steps=1401", "is 1401, expected at most the steps in total, 1400"),
        ("tiny", "text.heads=3", "text.heads is 3, expected a divisor of hidden_size, 128"),
        ("tiny", "unet.heads=3", "unet.heads is 3, expected a divisor of all channels, 64 too"),
        ("tiny", "unet.block_out_channels=16,16,16,16,16", "has 5 levels, expected fewer: each"),
        ("tiny", "denoiser.pool=100", "denoiser.pool is 100, expected a multiple of 256"),
        ("tiny", "denoiser.pool=300", "denoiser.pool is 300, expected a multiple of 256"),
        ("tiny", "denoiser.batch=8193", "denoiser.batch is 8193, expected at most the pool's"),
        ("tiny", "denoiser.cooldown=nan", "denoiser.cooldown is nan, expected a finite number"),
        ("tiny", "denoiser.prediction=x", "denoiser.prediction is 'x', expected 'epsilon' or"),
        ("tiny", "save_seconds=nan", "save_seconds is nan, expected a finite number"),
        ("tiny", "start=~nosuchuser/x", "start starts with ~nosuchuser"),
        ("clip", "vision.patch_size=7", "vision.patch_size is 7, expected 1, 2, 4, 8, 16, 32 or"),
        ("clip", "vision.heads=5", "vision.heads is 5, expected a divisor of hidden_size, 128"),
        ("clip", "contrast.pool=257", "contrast.pool is 257, expected a multiple of 256"),
        ("clip", "contrast.passes=0", "contrast.passes is 0, expected 1 or more"),
        ("clip", "projection=0", "projection is 0, expected 1 or more"),
    ],
)
def test_pretraining_that_cannot_be(tmp_path, config, setting, message):
    file = f"configs/pretrain_{config}.py"
    assert message in refusal(tmp_path, file, setting, kind=kind_of)


# Lines that follow `config = get_config() of configs/emoji.py` in a user's own file.
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("config.seeds = '3'", "seeds is '3', expected a whole number"),
        ("config.seeds = 3.0", "seeds is 3.0, expected a whole number"),
        ("config.seeds = True", "seeds is True, expected a whole number"),
        ("config.weights = 3", "weights is 3, expected text"),
        ("config.methods = 'dsd'", "methods is 'dsd', expected a list"),
        ("config.methods = {'dsd'}", "methods is {'dsd'}, expected a list"),
        ("config.splits = (3,)", "splits.0 is 3, expected text"),
        ("config.learn = 5", "learn is 5, expected an object with named fields"),
        ("config.learn.lora = None", "learn.lora is None, expected an object with named fields"),
        ("config.tune = None", "tune is None, expected an object with named fields"),
        ("config.data = 'emoji'", "data is 'emoji', expected an object with named fields"),
        ("del config.data", "data is missing"),
        ("del config.data.name", "data.name is None, expected one of emoji"),
        ("config.data.seed = 3", "'data.seed' is unknown"),
        ("config.stepps = 3", "'stepps' is unknown"),
        ("config.timestep = 3", "'timestep' is unknown; did you mean timesteps?"),
        ("config.learn.lora.rnk = 3", "'learn.lora.rnk' is unknown; did you mean learn.lora.rank?"),
        ("config.learn.lora.held_out = 0.2j", "learn.lora.held_out is 0.2j, expected a number"),
        ("config.learn['a/b'] = config.learn.lora", "learn.a/b is no name for a folder, expected"),
        ("config.learn['a' * 300] = config.learn.lora", "is no name for a folder, expected at"),
        ("config.learn.lora.steps = 10**5000", "learn.lora.steps is a int, expected"),
        ("config.cache = 'a\\0b'", "cache has a NUL character, which no path has"),
    ],
)
def test_a_file_that_sets_what_cannot_be(tmp_path, lines, message):
    """Named is the file, as no argument set it."""
    file, emoji = tmp_path / "mine.py", Path("configs/emoji.py").resolve()
    start = (
        "import runpy\ndef get_config():\n"
        f"    config = runpy.run_path({str(emoji)!r})['get_config']()\n"
        "    with config.ignore_type():\n"
    )
    file.write_text(f"{start}        {lines}\n    return config\n")
    said = refusal(tmp_path, str(file))
    assert said.startswith(f"{file}: ") and message in said


def test_several_mistakes_each_with_where_it_was_made(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from dsd_jax.config.defaults import benchmark_defaults\ndef get_config():\n"
        "    config = benchmark_defaults('own')\n    config.seeds = 0\n    config.noises = 0\n"
        "    return config\n"
    )
    said = refusal(tmp_path, str(file), "tune.steps=5", "tune.steps=0", "data.candidates=1")
    assert set(said.removesuffix(".").split("; ")) == {
        f"{file}: seeds is 0, expected 1 or more",
        "noises is 0, expected 1 or more",
        "--config.data.candidates=1: data.candidates is 1, expected 2 or more",
        "--config.tune.steps=0: tune.steps is 0, expected 1 or more",
    }


def test_a_limit_can_be_lifted(tmp_path):
    """As the description of `per_kind` says; its value in the file is a number."""
    arguments = ["--config=configs/emoji.py", f"--workdir={tmp_path}", "--config.per_kind=None"]
    assert (
        RunParser("train", "Learns.", "example", kind=RunConfig)
        .parse_args(arguments)
        .config.per_kind
        is None
    )


def test_what_a_file_leaves_out_has_its_default_and_can_be_set(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from ml_collections import ConfigDict\ndef get_config():\n"
        "    return ConfigDict(dict(data=dict(name='own', folder='x'), tune=dict(steps=7)))\n"
    )
    parser = RunParser("train", "Learns.", "example", kind=RunConfig)
    arguments = [f"--config={file}", f"--workdir={tmp_path / 'run'}"]
    config = parser.parse_args([*arguments, "--config.seeds=5", "--config.tune.batch=3"]).config
    assert (config.seeds, config.timesteps) == (5, 4)
    assert config.tune == ClipRecipe(steps=7, batch=3)
    # A workdir of old says no more of the data than its config did.
    assert config.data.model_dump() == {"name": "own", "folder": "x"}


def test_a_config_is_frozen_and_hashable():
    config = check(RunConfig, load_config("configs/emoji.py"), "emoji")
    with pytest.raises(ValueError, match="frozen"):
        config.seeds = 4
    assert len({config.learn["lora"], config.learn["lora"].model_copy()}) == 1


def test_choices_are_those_of_the_modules():
    """The classes of configs import no JAX, so that --help is quick."""
    assert get_args(Kind) == prompt_params.KINDS
    assert get_args(MethodName) == tuple(score_spec.METHODS)
    assert get_args(Remat) == REMAT
    assert all(callable(getattr(losses, name)) for name in get_args(Loss))
    assert get_args(ClipRecipe.model_fields["kind"].annotation) == tuple(KINDS)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", HUGE, "1e400"])
def test_every_number_is_finite_and_sensible(tmp_path, number):
    """No field lets such a number through, in any config."""
    parser = RunParser("train", "Learns.", "example", kind=RunConfig)
    for name in ("emoji", "own"):
        file, passed = f"configs/{name}.py", []
        values = load_config(file).to_dict()
        for field, info in known_fields(RunConfig, values).items():
            if not isinstance(info.default, int | float) or isinstance(info.default, bool):
                continue
            arguments = [f"--config={file}", f"--workdir={tmp_path}"]
            try:
                parser.parse_args([*arguments, f"--config.{field}={number}"])
            except UserError as error:
                assert field in str(error)
            else:
                passed.append(field)
        assert not passed


def test_lists_in_a_file_are_as_good_as_tuples():
    config = load_config("configs/emoji.py")
    with config.unlocked(), config.ignore_type():
        config.methods, config.learn.lora = ["dsd"], ConfigDict({"ridges": [1, 2.0]})
    checked = check(RunConfig, config, "emoji")
    assert checked.methods == ("dsd",) and checked.learn["lora"].ridges == (1.0, 2.0)
