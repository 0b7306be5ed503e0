"""Converts prompts to and from PyTorch (LoRA of diffusers, PEFT, kohya and the authors), and
models between safetensors and Flax msgpack.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsd_jax.cli import Parser, run_command, tell
from dsd_jax.errors import UserError
from dsd_jax.io.storage import is_remote, storage_errors

if TYPE_CHECKING:
    from dsd_jax.conversion.conversion_source import Source

EXAMPLE = """dsd-jax convert pytorch_model.bin runs/authors
  dsd-jax convert lora/pytorch_lora_weights.safetensors runs/lora --weights=org/name
  dsd-jax convert runs/emoji/prompts/adapted-256/seed-0 runs/for-diffusers
  dsd-jax convert tiny runs/tiny-flax"""
# What each kind can become, first what it becomes unless --to says otherwise.
FORMS = {
    "prompts": ("diffusers", "authors"),
    "adapter": ("prompts", "diffusers", "authors"),
    "model": ("msgpack", "safetensors"),
}
ALL_FORMS = ("prompts", "diffusers", "authors", "safetensors", "msgpack")


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("convert", __doc__ or "", EXAMPLE)
    add = parser.add_argument
    add(
        "source",
        metavar="FROM",
        help="a folder of prompts; a PyTorch adapter, as a file or its folder; or a model, as a "
        'folder, "tiny" or "org/name" on the Hub; the kind is detected',
    )
    add("target", metavar="TO", help="a new or empty folder")
    add(
        "--weights",
        metavar="MODEL",
        help="the model of the adapter or prompts; given it, every tensor is checked to fit",
    )
    add(
        "--to",
        choices=ALL_FORMS,
        help="the format to write; authors is the .bin file of the paper's code; default: adapters "
        "become prompts, prompts become LoRA for diffusers, and models change between safetensors "
        "and msgpack",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    flags = make_parser().parse_args(argv)
    check_target(flags.target)
    from dsd_jax.conversion.conversion_source import (
        find_source,  # heavy: after the arguments are known
    )
    from dsd_jax.distributed.devices import check_devices

    check_devices()

    source = find_source(flags.source)
    check_options(flags, source.kind)
    if source.kind == "model":
        print(convert_model(source.path, flags))
    else:
        print(convert_lora(source, flags))


def check_target(target: str) -> None:
    """Refuse a target that cannot be created or already has files: nothing is overwritten."""
    if is_remote(target):
        raise UserError(f"TO={target}: addresses are not understood here; name a folder.")
    path = Path(target)
    with storage_errors(f"TO={target[:200]} cannot be written", "name another folder"):
        if "\0" in target:
            raise UserError("TO has a NUL in it; name a folder.")
        if any("\ud800" <= letter <= "\udbff" for letter in target):  # no bytes of a name
            raise UserError("TO has half of a surrogate pair in it; name a folder.")
        is_taken = path.is_symlink() and not path.exists()
        is_taken |= path.exists() and (not path.is_dir() or any(path.iterdir()))
        above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UserError(f"TO={target} lies below {above}, a file; name another folder.")
    if is_taken:
        raise UserError(f"TO={target} is there already; name a folder that is new or empty.")


def check_options(flags: Namespace, kind: str) -> None:
    """Refuse options that a source of this kind does not take."""
    if flags.to and flags.to not in FORMS[kind]:
        raise UserError(
            f"--to={flags.to} does not go with {flags.source}, which is of the kind '{kind}' and "
            f"can become {' or '.join(FORMS[kind])}."
        )
    if flags.weights and kind == "model":
        raise UserError(f"--weights has no use for {flags.source}, which is a model itself.")


def convert_lora(source: "Source", flags: Namespace) -> str:
    """Write prompts, or LoRA for diffusers; return the line to print."""
    from dsd_jax.conversion.conversion_source import describe_lora, read_lora
    from dsd_jax.prompts import lora_files
    from dsd_jax.prompts.prompt_files import write_prompts

    prompts = read_lora(source, flags.weights)
    lora = {"lora": prompts["lora"]}
    to = flags.to or FORMS[source.kind][0]
    if to == "prompts":
        write_prompts(flags.target, lora, {"from": flags.source, "weights": flags.weights})
        use = f"--prompts={flags.target}"
    elif to == "diffusers":
        lora_files.write_diffusers(Path(flags.target), lora["lora"])
        use = f'pipeline.load_lora_weights("{flags.target}")'
    else:
        lora_files.write_authors(Path(flags.target), lora["lora"])
        use = f'torch.load("{flags.target}/{lora_files.AUTHORS}")'
    if others := " and ".join(kind for kind in sorted(prompts) if kind != "lora"):
        tell("warning", f"{others} of {flags.source} cannot be stored in this format: skipped")
    fit = f", all of which fit {flags.weights}" if flags.weights else ""
    return f"Wrote {flags.target}: {describe_lora(lora['lora'])}{fit}; use: {use}"


def convert_model(folder: Path, flags: Namespace) -> str:
    """Write the model in the other format; return the line to print."""
    from dsd_jax.weights.format_conversion import convert_model as write_model
    from dsd_jax.weights.format_conversion import format_of

    to = flags.to or ("msgpack" if format_of(folder) == "safetensors" else "safetensors")
    done = write_model(folder, Path(flags.target), to)
    left = f"; left behind: {', '.join(done.left_out)}" if done.left_out else ""
    types = " and ".join(done.dtypes)
    return f"Wrote {flags.target}: {done.tensors} tensors in {types} as {to}{left}"


if __name__ == "__main__":
    run_command(main)
