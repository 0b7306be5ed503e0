"""Prints a script by which a shell completes commands, options, configs and files."""

import argparse
import importlib
from collections.abc import Sequence

from dsd_jax.cli import Parser, run_command
from dsd_jax.config.bundled_configs import config_names
from dsd_jax.errors import UserError

EXAMPLE = """source <(dsd-jax completion bash)                          # in ~/.bashrc
  dsd-jax completion fish > ~/.config/fish/completions/dsd-jax.fish"""
SHELLS = ("bash", "zsh", "fish", "tcsh")


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("completion", __doc__ or "", EXAMPLE)
    parser.add_argument("shell", choices=SHELLS, help=", ".join(SHELLS))
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Raises:
        UserError: the package that writes such scripts is not installed.
    """
    flags = make_parser().parse_args(argv)
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise UserError(
            "completion needs the package shtab; install it: pip install 'shtab>=1.7'."
        ) from error

    print(shtab.complete(whole_parser(), shell=flags.shell))


def whole_parser() -> Parser:
    """Return a parser of the program with all its commands, with what completes each option."""
    import shtab

    from dsd_jax.__main__ import COMMANDS

    completions = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "FROM": shtab.FILE}
    parser = Parser("", "", "")
    parser.prog = "dsd-jax"
    commands = parser.add_subparsers(parser_class=argparse.ArgumentParser)
    for name, purpose in COMMANDS.items():
        own = importlib.import_module(f"dsd_jax.{name}").make_parser()
        for action in own._actions:
            if "--config" in action.option_strings:
                action.choices = config_names()
            elif action.metavar in completions:
                action.complete = completions[action.metavar]
        commands.add_parser(name, help=purpose, parents=[own], add_help=False)
    return parser


if __name__ == "__main__":
    run_command(main)
