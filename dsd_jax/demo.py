"""Serves a page in the browser that ranks captions for a picture and learns from a few pairs."""

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dsd_jax.cli import Parser, add_weights, run_command
from dsd_jax.errors import UserError
from dsd_jax.io.terminal import tell
from dsd_jax.web.demo_server import (
    LOOPBACK,
    ServerOptions,
    check_address,
    check_gradio,
    serving,
)

if TYPE_CHECKING:
    from dsd_jax import Prompts

EXAMPLE = """dsd-jax demo
  dsd-jax demo --prompts=runs/emoji/prompts --port=8000"""


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("demo", __doc__ or "", EXAMPLE)
    add_weights(parser)
    add = parser.add_argument
    add(
        "--prompts",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of prompts, or one with several of them, to choose from in the page; "
        "repeatable",
    )
    add(
        "--host",
        default=LOOPBACK,
        metavar="ADDRESS",
        help="where to listen; the default, %(default)s, is reached from this machine alone; "
        "0.0.0.0 opens the demo to the network",
    )
    add("--port", type=int, metavar="N", help="default: the first free one from 7860 on")
    add(
        "--share",
        action="store_true",
        help="let Gradio's servers show the demo to whoever has the address it prints",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    flags = make_parser().parse_args(argv)
    if flags.port is not None and not 1 <= flags.port <= 65535:
        raise UserError(f"--port={flags.port} should be from 1 to 65535.")
    options = ServerOptions(flags.host, flags.port, flags.share)
    check_gradio()
    check_address(options)

    import dsd_jax  # heavy: after the arguments are known to be good

    prompts = load_prompts(flags.prompts)
    model = dsd_jax.load(flags.weights)
    tell("demo", "starting; the first start compiles for a while")
    with serving(model, prompts, options) as address:
        print(f"The demo is at {address} (Ctrl-C stops it).", flush=True)
        threading.Event().wait()


def load_prompts(folders: Sequence[str]) -> Mapping[str, "Prompts"]:
    """Return the prompts in some folders, by names that tell them apart."""
    from dsd_jax import Prompts
    from dsd_jax.web.demo_requests import prompt_folders

    found = {name: path for folder in folders for name, path in prompt_folders(folder).items()}
    return {name: Prompts.load(path) for name, path in found.items()}


if __name__ == "__main__":
    run_command(main)
