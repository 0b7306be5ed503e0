"""The program: runs one of its commands, as `dsd-jax COMMAND` or `python -m dsd_jax COMMAND`."""

import importlib
from collections.abc import Sequence
from typing import NoReturn

from dsd_jax.cli import Parser, as_started, run_command
from dsd_jax.errors import UserError
from dsd_jax.io.terminal import did_you_mean, shorten

# Each is a module of this package with a function main(argv).
COMMANDS = {
    "score": "scores captions against your images and marks the best",
    "train": "learns prompts from a few labelled pairs, evaluates them, writes a report",
    "evaluate": "scores a benchmark by every method, with standard errors",
    "plan": "tells what a run takes on TPUs, without one",
    "convert": "converts prompts and models to and from PyTorch",
    "pretrain": "trains the bundled model from scratch",
    "demo": "serves a page in the browser that ranks captions and learns from a few pairs",
    "env": "prints versions, devices and folders, for reports of bugs",
    "cache": "lists what the caches hold, and cleans them",
    "completion": "prints a script by which a shell completes commands and options",
}
_PURPOSE = (
    "Tells how well captions fit images, by a frozen Stable Diffusion, and learns from a few."
)
_EXAMPLES = """score --image cat.png dog.png --caption "a cat" --caption "a dog"
train --config=emoji --workdir=runs/emoji
score --help"""


def make_parser() -> Parser:
    """Return the parser of what stands before a command."""
    program = as_started("")
    parser = Parser("", _PURPOSE, "")
    parser.usage = f"{program} COMMAND [OPTIONS]"
    width = max(map(len, COMMANDS))
    commands = [f"  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items()]
    examples = [f"  {as_started('')} {line}" for line in _EXAMPLES.splitlines()]
    parser.epilog = "\n".join(["commands:", *commands, "", "examples:", *examples])
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the command that the first argument names with the others; without any, print help.

    Raises:
        UserError: there is no such command.
    """
    first = argv[0] if argv else "--help"
    if first.startswith("-"):
        make_parser().parse_args(argv or [first])
    if first not in COMMANDS:
        hint = did_you_mean(first, list(COMMANDS))
        raise UserError(
            f"there is no command {shorten(first)}; {hint and f'{hint} '}Expected one of "
            f"{', '.join(COMMANDS)}."
        )
    importlib.import_module(f"dsd_jax.{first}").main(argv[1:])


def run() -> NoReturn:
    """Run the program with the process's arguments, then exit."""
    run_command(main)


if __name__ == "__main__":
    run()
