"""The parts that all commands share: options, --help, exit codes and messages.

A command's module is a docstring (its purpose), a `make_parser()`, a `main(argv)` and

    if __name__ == "__main__":
        run_command(main)
"""

import argparse
import contextlib
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dsd_jax.config.bundled_configs import config_names
from dsd_jax.distributed.xla_messages import silence_xla
from dsd_jax.errors import DeviceError, Preempted, UserError
from dsd_jax.io.terminal import OutputError, guarded_terminal, show_warning, tell
from dsd_jax.version import __version__

if TYPE_CHECKING:
    from dsd_jax.config.fields import ConfigClass

# Exit codes.
MISTAKE = 2  # of the user
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
INTERRUPTED = 130  # what shells report after Ctrl-C: 128 + SIGINT
NO_READER = 141  # what shells report of a program that wrote to a closed pipe: 128 + SIGPIPE


def run_command(
    main: Callable[[Sequence[str]], object], argv: Sequence[str] | None = None
) -> NoReturn:
    """Run `main(argv)` (by default the process's arguments) as a command, then exit.

    A failure that is no bug becomes one line on stderr, and these exit codes:

    - 2 after a `UserError`, and where stdout is full;
    - 75 after a `DeviceError`, for which launchers and schedulers start the command again;
    - 130 after Ctrl-C;
    - 141, in silence, where nobody reads stdout any more (`| head`), as other tools end;
    - 0, or what a cluster's launcher has put into `DSD_STOPPED`, after SIGTERM told a run to stop
      and it saved its state: to a scheduler 0 would mean that nothing is left to resume.

    Any other exception is a bug and stays a traceback. Warnings become one line each.
    """
    with guarded_terminal(), warnings.catch_warnings():  # the latter also restores showwarning
        warnings.showwarning = show_warning
        try:
            code = _run(main, sys.argv[1:] if argv is None else argv)
        except KeyboardInterrupt:
            # Whoever asks twice does not want to wait for threads and for Python's own end.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            tell("stopped", "interrupted by the user")
            code = INTERRUPTED
    sys.exit(code)


def _run(main: Callable[[Sequence[str]], object], argv: Sequence[str]) -> int | str | None:
    """Run `main(argv)`, print what went wrong, and return the exit code."""
    try:
        return _run_main(main, argv)
    except UserError as error:
        tell("error", error)
        return MISTAKE
    except DeviceError as error:
        tell("error", error)
        return TRY_AGAIN
    except Preempted as stop:
        tell("stopped", stop)
        return _code_of_stop()
    except OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            return NO_READER
        reason = getattr(error.__cause__, "strerror", None) or error.__cause__
        tell("error", f"{error} ({reason}); make room, or send it elsewhere.")
        return MISTAKE


def _run_main(main: Callable[[Sequence[str]], object], argv: Sequence[str]) -> int | str | None:
    code = 0
    _check_folder()
    silence_xla()
    try:
        main(argv)
    except SystemExit as stop:  # after --help and --version
        code = stop.code
    except Preempted:
        raise
    except (Exception, KeyboardInterrupt) as error:
        _end_others(error)
        raise
    sys.stdout.flush()
    return code


def _code_of_stop() -> int:
    """Return the exit code after SIGTERM, which a launcher may have named."""
    named = os.environ.get("DSD_STOPPED", "0")
    if named.isascii() and named.isdigit() and int(named[:4]) < 256:
        return int(named[:4])
    tell("warning", f"DSD_STOPPED is '{named}', expected 0 to 255; 143 is taken for it.")
    return 143


def _end_others(error: BaseException) -> None:
    """End this process and those that it has joined, if any, with the error's exit code."""
    if "jax" in sys.modules:  # heavy; whoever has joined others has imported it
        from dsd_jax.distributed.failure import BUG, end_together

        codes = {
            UserError: MISTAKE,
            OutputError: MISTAKE,
            DeviceError: TRY_AGAIN,
            KeyboardInterrupt: INTERRUPTED,
        }
        end_together(error, next((codes[k] for k in codes if isinstance(error, k)), BUG))


def _check_folder() -> None:
    """Refuse a working directory that was deleted, in which no path means anything."""
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(
            f"the current folder is not there any more ({error.strerror}); change to another."
        ) from error


def as_started(name: str) -> str:
    """Return how the user has started a command, such as `dsd-jax score`; "" is the program's."""
    program = Path(sys.argv[0] if sys.argv else "")
    if program.stem == "dsd-jax":
        return f"dsd-jax {name}".rstrip()
    if program.name == "__main__.py":
        return f"python -m dsd_jax {name}".rstrip()
    return f"python -m dsd_jax.{name}".rstrip(".")


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are `UserError`s: one line instead of the whole usage."""

    def __init__(self, name: str, purpose: str, example: str):
        """Take the command's name; `example` has command lines that begin with `dsd-jax <name>`."""
        super().__init__(
            prog=as_started(name),
            description=purpose,
            epilog=f"example:\n  {example.replace(f'dsd-jax {name}', as_started(name))}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--version", action="version", version=f"dsd_jax {__version__}")

    def error(self, message: str) -> NoReturn:
        """Raise `UserError` for a mistake that argparse has found."""
        raise UserError(f"{message}; see {self.prog} --help.")


class ConfigParser(Parser):
    """A parser for commands that take `--config=NAME[:ARG]` and `--config.FIELD=VALUE`.

    `parse_args` returns a namespace whose `config` is an object of the class `kind` with the
    overrides applied and every field checked.
    """

    def __init__(self, name: str, purpose: str, example: str, *, kind: "ConfigClass"):
        """Take the arguments of `Parser`; `kind` is the class that checks the config."""
        super().__init__(name, purpose, example)
        self.kind = kind
        self.add_argument(
            "--config",
            required=True,
            metavar="NAME[:ARG]",
            help=f"one of the program's configs ({', '.join(config_names())}), or a Python file "
            "with a function get_config; ARG is a variant of it, such as emoji:full",
        )
        self.add_argument(
            "--config.FIELD",
            dest="_",
            metavar="VALUE",
            help="set a field of the config; --config=NAME --help lists the fields",
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace=None) -> argparse.Namespace:
        """Parse as `argparse` does; raise `UserError` for any mistake in arguments or config."""
        from dsd_jax.config import config_files  # heavy: only commands with a config need it

        arguments = list(sys.argv[1:] if args is None else args)
        arguments, overrides = split_overrides(arguments)
        if {"-h", "--help"} & set(arguments):
            self.epilog = f"{self.epilog}{_fields_help(arguments, self.kind)}"
        flags = super().parse_args(arguments, namespace)
        delattr(flags, "_")
        flags.config = config_files.read_config(self.kind, flags.config, overrides)
        return flags


class RunParser(ConfigParser):
    """A `ConfigParser` that takes `--workdir`, too: an `epath.Path` to a folder or in a bucket.

    `parse_args` returns the whole command line as `command`, too.
    """

    def __init__(self, name: str, purpose: str, example: str, *, kind: "ConfigClass"):
        """Take the arguments of `ConfigParser`."""
        super().__init__(name, purpose, example, kind=kind)
        self.add_argument(
            "--workdir",
            required=True,
            metavar="DIR",
            help="output folder, or gs://BUCKET/FOLDER; created if it does not exist",
        )
        add_quiet(self)

    def parse_args(self, args: Sequence[str] | None = None, namespace=None) -> argparse.Namespace:
        """Parse as `ConfigParser` does, and create the workdir or raise `UserError`."""
        from dsd_jax.io.storage import make_folder

        _join_others()  # first: whoever fails from here on ends the others, too
        arguments = list(sys.argv[1:] if args is None else args)
        flags = super().parse_args(arguments, namespace)
        flags.command = shlex.join([*self.prog.split(), *arguments])
        was_there = os.path.lexists(flags.workdir)
        flags.workdir = make_folder(flags.workdir, "--workdir")
        flags.workdir_is_new = not was_there
        return flags


@contextlib.contextmanager
def no_empty_workdir(flags: argparse.Namespace) -> Iterator[None]:
    """Delete the workdir that `RunParser` has created if a mistake ends the run with it empty."""
    try:
        yield
    except UserError:
        if flags.workdir_is_new:
            with contextlib.suppress(OSError):  # not empty, or in a bucket
                os.rmdir(flags.workdir)
        raise


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add `--weights`, which names a model; the bundled one by default."""
    parser.add_argument(
        "--weights",
        default="tiny",
        metavar="NAME",
        help='"tiny" (the bundled model), a folder in the Hugging Face layout, or '
        '"org/name[@revision]" on the Hub; default: %(default)s',
    )


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add `--quiet`, by which a command shows neither what it is about to do nor how far it is."""
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="no banner and no progress on stderr; warnings and errors stay",
    )


def _join_others() -> None:
    from dsd_jax.distributed.cluster import find_place

    if find_place() is not None:
        from dsd_jax.distributed import processes  # heavy: for several processes only

        processes.join()


def split_overrides(arguments: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the arguments without `--config.a.b=value` and `--config.a.b value`, and those."""
    others, overrides = [], []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, text = argument.partition("=")
        if not name.startswith("--config."):
            others.append(argument)
            continue
        text = text if equals else next(remaining, None)
        if text is None or (not equals and text.startswith("--")):
            raise UserError(f"{name} needs a value: {name}=VALUE.")
        check_text(text, name)
        overrides.append((name.removeprefix("--config."), text))
    return others, overrides


def check_text(text: str, option: str) -> None:
    """Raise `UserError` for an argument whose bytes are no UTF-8; names of files may be such."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text.encode(errors="backslashreplace").decode()
        raise UserError(
            f"{option} '{shown}' is no text in UTF-8, at letter {error.start + 1}; "
            "convert it, or type it in a terminal that uses UTF-8."
        ) from error


def _fields_help(arguments: Sequence[str], kind: "ConfigClass") -> str:
    """Return the part of `--help` on the fields of the config that the arguments name, if any."""
    from dsd_jax.config.config_files import load_config
    from dsd_jax.config.fields import describe

    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    spec = finder.parse_known_args(arguments)[0].config
    return f"\n\nfields of {spec}:\n{describe(kind, load_config(spec).to_dict())}" if spec else ""
