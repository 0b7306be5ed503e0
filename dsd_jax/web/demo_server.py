"""The demo's server: started, stopped, and kept to this machine unless asked otherwise."""

import importlib.util
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsd_jax.errors import UserError

if TYPE_CHECKING:
    from dsd_jax.diffusion.pipeline import Model
    from dsd_jax.prompts.learned_prompts import Prompts

LOOPBACK = "127.0.0.1"
MOST_WAITING = 20  # requests; who comes then is told so
MOST_VISITORS = 200  # whose learned prompts are in memory at a time
MISSING = (
    'the demo needs Gradio, which is not installed: pip install "dsd-jax[demo]", or '
    "pip install -r requirements-demo.txt in a clone."
)


@dataclass(frozen=True)
class ServerOptions:
    """Where the demo listens.

    Attributes:
        host: an address of this machine; `LOOPBACK` keeps the demo to itself.
        port: None for the first free one from 7860 on.
        share: whether Gradio's servers pass the demo on to the world for some days.
    """

    host: str = LOOPBACK
    port: int | None = None
    share: bool = False


def check_gradio() -> None:
    """Raise `UserError` where Gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError(MISSING)


def check_address(options: ServerOptions) -> None:
    """Raise `UserError` where nobody can listen: soon, for a model takes a while to load."""
    try:
        kind, _, _, _, address = socket.getaddrinfo(
            options.host, options.port or 0, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise _cannot_listen(options, error.strerror or str(error)) from error


@contextmanager
def serving(
    model: "Model",
    prompts: Mapping[str, "Prompts"] | None = None,
    options: ServerOptions = ServerOptions(),
    *,
    steps: int | None = None,
) -> Iterator[str]:
    """Serve the demo while the context lasts; gives its address.

    Args:
        model: from `dsd_jax.load`.
        prompts: to choose from, by what they are called.
        options: where it listens.
        steps: of the optimizer in a lesson, at most; None for the recipe's.

    Raises:
        UserError: Gradio is not installed, or the address or port cannot be listened at.
    """
    check_gradio()
    with tempfile.TemporaryDirectory(prefix="dsd-demo-") as folder, _surroundings(folder, options):
        from dsd_jax.web.demo_examples import examples
        from dsd_jax.web.demo_handlers import DemoHandlers
        from dsd_jax.web.demo_page import make_page

        handlers = DemoHandlers(model, prompts or {}, examples(), Path(folder), steps)
        page = make_page(handlers, handlers.first_answer())
        try:
            yield _launch(page, options, Path(folder))
        finally:
            page.close(verbose=False)


def _launch(page: Any, options: ServerOptions, folder: Path) -> str:
    """Start the server of a page; return its address."""
    from dsd_jax.web.demo_inputs import MOST_MEGABYTES
    from dsd_jax.web.demo_page import SCRIPT, STYLE, make_theme

    page.queue(max_size=MOST_WAITING, api_open=False)
    try:
        _, local, shared = page.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            quiet=True,
            inbrowser=False,
            prevent_thread_lock=True,
            inline=False,
            max_file_size=f"{MOST_MEGABYTES}mb",
            state_session_capacity=MOST_VISITORS,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
            theme=make_theme(),
            css_paths=STYLE,
            js=SCRIPT,
            favicon_path=_favicon(folder),
        )
    except OSError as error:
        raise _cannot_listen(options, "in use") from error
    except ValueError as error:  # what Gradio says where it cannot reach itself
        raise UserError(
            f"the demo cannot reach its own address on {options.host}; a proxy may stand in "
            "between: set NO_PROXY=localhost,127.0.0.1."
        ) from error
    return shared or local


def _cannot_listen(options: ServerOptions, reason: str) -> UserError:
    where = f"port {options.port}" if options.port else "a port from 7860 on"
    reason = f"{reason[:1].lower()}{reason[1:]}"
    return UserError(
        f"the demo cannot listen at {options.host}, {where} ({reason}); give another --port or "
        "--host."
    )


def _favicon(folder: Path) -> str:
    """Write the icon of the page's tab; return its path."""
    from PIL import Image

    from dsd_jax.data.synthetic.sprites import STYLES, load_sprites

    sprites = load_sprites()
    drawing = sprites.images[STYLES.index("twemoji"), sprites.concepts.index("cat")]
    path = folder / "icon.png"
    Image.fromarray(drawing).resize((64, 64)).save(path)
    return str(path)


@contextmanager
def _surroundings(folder: str, options: ServerOptions) -> Iterator[None]:
    """Set what Gradio reads from the environment, and put it back at the end."""
    proxies = [os.environ.get("NO_PROXY", ""), "localhost", LOOPBACK, options.host]
    wanted = {
        "GRADIO_ANALYTICS_ENABLED": "False",  # nothing is sent to anybody
        "GRADIO_TEMP_DIR": folder,  # uploads end with the server
        "NO_PROXY": ",".join(
            dict.fromkeys(filter(None, proxies))
        ),  # it asks itself whether it is up
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
