"""From a config's `data` to the benchmark that it describes."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dsd_jax.data import classify, compositional, comvg, emoji, own, refcocog, vqa, winoground
from dsd_jax.data.damage import POLICIES, without_damaged
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.images import FITS, MAX_SIDE, MIN_SIDE
from dsd_jax.data.made.make import made_folder
from dsd_jax.data.parts import Parts, with_parts
from dsd_jax.data.records import with_records
from dsd_jax.errors import UserError
from dsd_jax.home import cache_folder

READERS: dict[str, Callable[..., Benchmark]] = {
    "emoji": emoji.benchmark,
    "comvg": comvg.benchmark,
    "refcocog": refcocog.benchmark,
    "vqa": vqa.benchmark,
    "winoground": winoground.benchmark,
    "compositional": compositional.benchmark,
    "classify": classify.benchmark,
    "own": own.benchmark,
}
COMMON = {
    "made": False,
    "split_rule": "official",
    "shots_part": 0.05,
    "validation_part": 0.05,
    "split_seed": 0,
    "damaged": "stop",
    "prepared": "",
    "prepared_size": 512,
}


def open_benchmark(settings: Mapping[str, Any]) -> Benchmark:
    """The benchmark that some settings describe.

    Args:
        settings: `name`, a key of `READERS`; what that reader's `benchmark` takes; and of COMMON:
            made: read a small data set of emoji scenes in the benchmark's layout, written into the
                user's cache, instead of `folder`.
            split_rule, shots_part, validation_part, split_seed: see `parts.Parts`.
            damaged: "stop" when a picture cannot be read; "skip" looks at all pictures first and
                leaves out the items of those.
            prepared: a folder where pictures are kept, decoded and resized once; "" for none.
            prepared_size: their side in pixels, which is that of the model's pictures.

    Returns:
        A benchmark whose `load` looks at a split's files; it lists pictures, but reads none.

    Raises:
        UserError: a name, field or value is unknown, or the reader says so.
    """
    settings = dict(settings)
    name = settings.pop("name", None)
    if name not in READERS:
        raise UserError(f"data.name is {name!r}; expected {', '.join(READERS)}.")
    parameters = inspect.signature(READERS[name]).parameters
    check_fields(name, parameters, settings)
    common = {field: settings.pop(field, value) for field, value in COMMON.items()}
    check_choices(settings, common)
    if common["made"]:
        layout = parameters["layout"].default if "layout" in parameters else name
        made = made_folder(settings.get("layout", layout), cache_folder())
        settings["folder"] = str(made)
    benchmark = READERS[name](**settings)
    parts = Parts(*(common[f] for f in ("split_rule", "shots_part", "validation_part")))
    benchmark = with_parts(benchmark, parts._replace(seed=common["split_seed"]))
    if common["damaged"] == "skip":
        load = partial(load_whole, benchmark)
        benchmark = Benchmark(benchmark.name, benchmark.splits, load)
    if common["prepared"]:
        described = {"name": name, **settings, **common}
        size = common["prepared_size"]
        benchmark = with_records(benchmark, common["prepared"], described, size)
    return benchmark


def check_fields(name: str, parameters: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuses unknown fields, and a benchmark that needs a folder without one."""
    known = [*parameters, *COMMON]
    unknown = [field for field in settings if field not in known]
    if unknown:
        raise UserError(f"data.{unknown[0]} is no field of {name}; expected {', '.join(known)}.")
    if "folder" in parameters and not settings.get("folder") and not settings.get("made"):
        raise UserError("data.folder is not set; name the folder that holds the data.")


def check_choices(settings: Mapping[str, Any], common: Mapping[str, Any]) -> None:
    """Refuses unknown values of what all readers share."""
    chosen = (("fit", settings.get("fit", FITS[0]), FITS), ("damaged", common["damaged"], POLICIES))
    for field, value, choices in chosen:
        if value not in choices:
            raise UserError(f"data.{field} is {value!r}; expected {' or '.join(choices)}.")
    if not MIN_SIDE <= common["prepared_size"] <= MAX_SIDE:
        raise UserError(
            f"data.prepared_size is {common['prepared_size']}; expected {MIN_SIDE} to {MAX_SIDE:,}."
        )


def load_whole(benchmark: Benchmark, split: str) -> Examples:
    """A split without items whose pictures are damaged."""
    return without_damaged(benchmark.load(split), f"{benchmark.name} {split}")
