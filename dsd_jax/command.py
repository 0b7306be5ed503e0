"""What all commands share: options, --help, exit codes and how messages reach the terminal.

A command's module is a docstring (its purpose), a `main(argv)` and

    if __name__ == "__main__":
        run_command(main)
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from dsd_jax import configuration
from dsd_jax.config_help import describe
from dsd_jax.errors import Preempted, UserError
from dsd_jax.folders import make_folder
from dsd_jax.version import __version__

MISTAKE = 2  # exit code of a user's mistake
INTERRUPTED = 130  # what shells report after Ctrl-C: 128 + SIGINT


def run_command(
    main: Callable[[Sequence[str]], object], argv: Sequence[str] | None = None
) -> NoReturn:
    """Runs `main(argv)` (by default the process's arguments) as a command, then exits.

    The exit code is 0, or 2 after a `UserError`, whose message becomes one line on stderr, or 130
    after Ctrl-C. A run that SIGTERM told to stop and that saved its state ends well, with 0, or
    with what the launcher of a cluster has put into `DSD_STOPPED`: to a scheduler 0 would mean that
    there is nothing left to resume. Any other exception is a bug and stays a traceback. Warnings
    become one line each.
    """
    code = 0
    # What was compiled once need not be again: a second start takes seconds instead of a minute.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache/dsd_jax/compiled"))
    with warnings.catch_warnings():  # also restores showwarning
        warnings.showwarning = show_warning
        try:
            main(sys.argv[1:] if argv is None else argv)
        except UserError as error:
            tell("error", error)
            code = MISTAKE
        except Preempted as stop:
            tell("stopped", stop)
            code = int(os.environ.get("DSD_STOPPED", 0))
        except KeyboardInterrupt:
            tell("stopped", "interrupted by the user")
            code = INTERRUPTED
    sys.exit(code)


def tell(kind: str, message: object) -> None:
    """Prints one line `kind: message` on stderr, whatever line breaks the message has."""
    line = " ".join(part.strip() for part in str(message).splitlines())
    print(f"{kind}: {line}", file=sys.stderr, flush=True)


def show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """`warnings.showwarning` for a user, who has no use for the place in our code."""
    tell("warning", message)


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are `UserError`s: one line instead of the whole usage."""

    def __init__(self, name: str, purpose: str, example: str):
        """`name` as in `python -m dsd_jax.<name>`; `example` is a whole command line."""
        super().__init__(
            prog=f"python -m dsd_jax.{name}",
            description=purpose,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--version", action="version", version=f"dsd_jax {__version__}")

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong."""
        raise UserError(f"{message}; see {self.prog} --help.")


class ConfigParser(Parser):
    """A parser for commands that take `--config=FILE[:ARG]` and `--config.FIELD=VALUE`.

    `parse_args` returns a namespace whose `config` is a locked `ConfigDict` with the overrides
    applied.
    """

    def __init__(self, name: str, purpose: str, example: str):
        """As `Parser`."""
        super().__init__(name, purpose, example)
        self.add_argument(
            "--config",
            required=True,
            metavar="FILE[:ARG]",
            help="Python file with a get_config function, and what to hand to it",
        )
        self.add_argument(
            "--config.FIELD",
            dest="_",
            metavar="VALUE",
            help="sets a field of the config; --config=FILE --help lists them",
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace=None) -> argparse.Namespace:
        """As `argparse`; raises `UserError` for any mistake in arguments or config."""
        arguments = list(sys.argv[1:] if args is None else args)
        arguments, overrides = split_overrides(arguments)
        if {"-h", "--help"} & set(arguments):
            self.epilog += fields_help(arguments)
        flags = super().parse_args(arguments, namespace)
        del flags._
        flags.config = configuration.load_config(flags.config)
        for field, text in overrides:
            configuration.override(flags.config, field, text)
        return flags


class RunParser(ConfigParser):
    """A `ConfigParser` that takes `--workdir`, too: an `epath.Path` to a folder or in a bucket."""

    def __init__(self, name: str, purpose: str, example: str):
        """As `Parser`."""
        super().__init__(name, purpose, example)
        self.add_argument(
            "--workdir",
            required=True,
            metavar="DIR",
            help="folder, or gs://BUCKET/FOLDER, for all that is written; created if need be",
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace=None) -> argparse.Namespace:
        """As `ConfigParser`; raises `UserError` for a workdir that can't be written to, too."""
        flags = super().parse_args(args, namespace)
        flags.workdir = make_folder(flags.workdir, "--workdir")
        return flags


def split_overrides(arguments: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes `--config.a.b=value` and `--config.a.b value` out of the arguments."""
    rest, overrides = [], []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, text = argument.partition("=")
        if not name.startswith("--config."):
            rest.append(argument)
            continue
        text = text if equals else next(remaining, None)
        if text is None or (not equals and text.startswith("--")):
            raise UserError(f"{name} needs a value: {name}=VALUE.")
        overrides.append((name.removeprefix("--config."), text))
    return rest, overrides


def fields_help(arguments: Sequence[str]) -> str:
    """The part of `--help` on the fields of the config named in the arguments, if one is."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    spec = finder.parse_known_args(arguments)[0].config
    if not spec:
        return ""
    return f"\n\nfields of {spec}:\n{describe(spec)}"
