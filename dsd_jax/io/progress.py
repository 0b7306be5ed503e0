"""Progress of long work: a bar in a terminal or notebook, a line now and then in a log.

A `Stage` counts what is finished, and a thread of it shows that, also while the main thread waits
for a compiler, a disk or a device: what takes long says so within ten seconds.
"""

import contextlib
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from dsd_jax.io.terminal import in_notebook, printable, say

BAR_SECONDS = 0.5  # between two drawings of a bar
LINE_SECONDS = 8.0  # between two lines of a log
LATER_SECONDS = 30.0  # between them once a stage has taken `LONG_SECONDS`
LONG_SECONDS = 300.0
SHORT_SECONDS = 2.0  # a stage that ends sooner leaves nothing behind
_NOTED_SECONDS = 1.0  # what is waited for is named from then on
_ONE_SECONDS = 0.3  # compilations that follow each other so closely are shown as one
_COMPILATION = "/jax/core/compile/"  # how the names of JAX's events begin


def is_terminal() -> bool:
    """Return whether messages go to a terminal that can draw over a line."""
    try:
        return os.environ.get("TERM") != "dumb" and bool(sys.stderr.isatty())
    except (AttributeError, ValueError):  # no stderr, or a closed one
        return False


def duration(seconds: float) -> str:
    """Return a time in words, such as "34 s", "2 min 05 s" or "1 h 12 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"


class Stage:
    """A context manager that shows how far a stage of the work is.

    Args:
        name: of the stage, such as "scoring".
        total: what is done at its end, in any unit; None where that is not known, or not yet.
        shown: whether anything is shown.
        done: what an earlier run has done of it.
    """

    def __init__(
        self, name: str, total: float | None = None, *, shown: bool = True, done: float = 0.0
    ):
        """Show nothing yet."""
        self.name, self.total, self.status = printable(name), total, ""
        self.is_shown, self._first, self._done = shown, done, done
        self._started = self._last_line = time.monotonic()
        self._waits: list[tuple[str, float]] = []  # what for, and since when
        self._compilations: list[float] = []  # since when, the outermost first
        self._compiled = 0.0  # seconds of all compilations that have ended
        self._compilation = (-1.0, -1.0)  # the begin and the end of the last one that has ended
        self._owner = threading.get_ident()
        self._display: _Bar | _Lines | _Elsewhere | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="progress")

    def __enter__(self) -> "Stage":
        """Start the clock, and the thread that shows it."""
        self._started = time.monotonic()
        if self.is_shown:
            _listen(self, True)
            self._display = _new_display()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Show the end of the stage if it took long enough for anybody to wonder."""
        self._end.set()
        if self._display is None:
            return
        _listen(self, False)
        self._thread.join(LINE_SECONDS)
        with _display_errors():
            self._display.close(self, ended=kind is None)

    @property
    def elapsed(self) -> float:
        """The seconds since the start."""
        return time.monotonic() - self._started

    @property
    def share(self) -> float | None:
        """The share of the total that is done, from 0 to 1; None where there is no total."""
        return min(1.0, self._done / self.total) if self.total else None

    @property
    def left(self) -> float | None:
        """The seconds that the rest will take if it goes on as before; None where that is unknown.

        Compilations do not count: they come first, and once.
        """
        work, now, compilations = self._done - self._first, time.monotonic(), [*self._compilations]
        # What the last one has taken is in the sum already.
        compiling = now - max(compilations[0], self._compilation[1]) if compilations else 0.0
        seconds = now - self._started - self._compiled - compiling
        if not self.total or work <= 0 or seconds < 1:
            return None
        return max(0.0, seconds / work * (self.total - self._done))

    @property
    def note(self) -> str:
        """A note on what the main thread waits for, and how long it has; empty at first."""
        waits, compilations, now = [*self._waits], [*self._compilations], time.monotonic()
        what, since = waits[-1] if waits else ("", now)
        if compilations:
            began = max([compilations[0], *(since for _, since in waits[-1:])])
            what, since = f"compiling {what}".rstrip(), began
        if now - since < _NOTED_SECONDS:
            return ""
        return f"{what} {duration(now - since)}"

    def advance(self, amount: float = 1.0) -> None:
        """Count an amount as finished."""
        self._done += amount

    def reach(self, done: float) -> None:
        """Count what is finished as this much of the total, whatever was counted before."""
        self._done = done

    @contextlib.contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """Name what the main thread waits for; it is shown if that takes a while."""
        self._waits.append((what, time.monotonic()))
        try:
            yield
        finally:
            self._waits.pop()

    def on_compilation_start(self, event: str, value: float, **_: Any) -> None:
        """Take note that JAX has begun to trace, lower or compile; a listener of its events."""
        if event.startswith(_COMPILATION) and threading.get_ident() == self._owner:
            now, (begin, end) = time.monotonic(), self._compilation
            # Tracing, lowering and compiling a function follow each other: one compilation.
            self._compilations.append(begin if now - end < _ONE_SECONDS else now)

    def on_compilation_end(self, event: str, duration_secs: float, **_: Any) -> None:
        """Take note that JAX has traced, lowered or compiled; a listener of its events."""
        ours = event.startswith(_COMPILATION) and threading.get_ident() == self._owner
        if ours and self._compilations:
            begin, now = self._compilations.pop(), time.monotonic()
            if not self._compilations:
                self._compiled += now - max(begin, self._compilation[1])
                self._compilation = begin, now

    def _beat(self) -> None:
        while not self._end.wait(BAR_SECONDS):
            with _display_errors():
                if self._display is not None:
                    self._display.show(self)


@dataclass(frozen=True)
class Work:
    """A part of a stage, whose shares are counted as they are finished.

    Attributes:
        stage: None where nobody wants to know.
        amount: of the stage's total, that this part is.
    """

    stage: Stage | None = None
    amount: float = 0.0

    def advance(self, share: float) -> None:
        """Count a share of this part as finished."""
        if self.stage:
            self.stage.advance(share * self.amount)

    def finish(self, arrays: Any) -> None:
        """Count all of this part as finished once arrays are computed, where that is shown."""
        if self.stage and self.stage.is_shown:
            import jax

            jax.block_until_ready(arrays)
            self.advance(1.0)

    def part(self, share: float) -> "Work":
        """Return a part of this part, of which it is a share."""
        return Work(self.stage, share * self.amount)

    def waiting_for(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Name what the main thread waits for, as a stage does."""
        return self.stage.waiting_for(what) if self.stage else contextlib.nullcontext()


UNSEEN = Work()  # of which nothing is shown


_ELSEWHERE: ContextVar[Callable[[Stage], None] | None] = ContextVar("elsewhere", default=None)


@contextlib.contextmanager
def stages_shown_by(show: Callable[[Stage], None]) -> Iterator[None]:
    """Have stages that begin in this context shown by a function instead of a bar.

    Args:
        show: called with a stage about twice a second, from a thread of it, and at its end.
    """
    token = _ELSEWHERE.set(show)
    try:
        yield
    finally:
        _ELSEWHERE.reset(token)


@contextlib.contextmanager
def stages_hidden(hidden: bool = True) -> Iterator[None]:
    """Show nothing of stages that begin in this context, unless `hidden` is False."""
    with stages_shown_by(lambda stage: None) if hidden else contextlib.nullcontext():
        yield


def _new_display() -> "_Bar | _Lines | _Elsewhere":
    show = _ELSEWHERE.get()
    if show is not None:
        return _Elsewhere(show)
    return _Bar() if is_terminal() or in_notebook() else _Lines()


class _Elsewhere:
    """The display of a stage in another program's window."""

    def __init__(self, show: Callable[[Stage], None]) -> None:
        self._show = show

    def show(self, stage: Stage) -> None:
        self._show(stage)

    def close(self, stage: Stage, *, ended: bool) -> None:
        if ended:
            self._show(stage)


class _Lines:
    """The display of a stage in a log."""

    def __init__(self) -> None:
        self._shown = 0.0  # seconds after the start

    def show(self, stage: Stage) -> None:
        elapsed = stage.elapsed
        every = LINE_SECONDS if elapsed < LONG_SECONDS else LATER_SECONDS
        if elapsed - self._shown >= (every if self._shown else SHORT_SECONDS):
            self._shown = elapsed
            self._print(stage)

    def close(self, stage: Stage, *, ended: bool) -> None:
        if self._shown and ended:
            status = f"; {stage.status}" if stage.status else ""
            say(f"{stage.name}: done in {duration(stage.elapsed)}{status}")

    def _print(self, stage: Stage) -> None:
        share = "" if stage.share is None else f"{100 * stage.share:.0f} % after "
        left = "" if stage.left is None else f", about {duration(stage.left)} left"
        parts = [f"{share}{duration(stage.elapsed)}{left}", stage.status, stage.note]
        say(f"{stage.name}: {'; '.join(filter(None, parts))}")


class _Bar:
    """The display of a stage in a terminal or a notebook."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._counts = False  # whether the bar shows a share

    def show(self, stage: Stage) -> None:
        self._draw(stage, [f"{duration(stage.left)} left" if stage.left else "", stage.note])

    def close(self, stage: Stage, *, ended: bool) -> None:
        if self._bar is not None:
            self._draw(stage, [] if ended else ["not finished"])
            self._bar.leave = stage.elapsed >= SHORT_SECONDS or not ended
            self._bar.close()

    def _draw(self, stage: Stage, further: list[str]) -> None:
        counts = stage.share is not None
        if self._bar is not None and self._counts != counts:  # the total has become known
            self._bar.leave = False
            self._bar.close()
            self._bar = None
        if self._bar is None:
            self._bar, self._counts = _make_bar(stage), counts
        parts = [duration(stage.elapsed), *further, stage.status]
        self._bar.text = ", ".join(filter(None, parts))
        self._bar.n = 0 if stage.share is None else round(100 * stage.share, 1)
        self._bar.refresh()


def _make_bar(stage: Stage) -> Any:
    """Return a tqdm bar from 0 to 100 that shows its attribute `text`."""
    if in_notebook() and importlib.util.find_spec("ipywidgets"):
        from tqdm.notebook import tqdm
    else:
        from tqdm import tqdm

    base: Any = tqdm

    def facts(bar: Any) -> dict[str, Any]:
        return {**base.format_dict.fget(bar), "text": bar.text}

    bar_class: Any = type("Bar", (base,), {"text": "", "format_dict": property(facts)})
    if stage.share is None:
        return bar_class(desc=stage.name, bar_format="{desc}: {text}", dynamic_ncols=True)
    form = "{desc}: {percentage:3.0f}%|{bar}| {text}"
    return bar_class(desc=stage.name, total=100, bar_format=form, dynamic_ncols=True)


@contextlib.contextmanager
def _display_errors() -> Iterator[None]:
    """Pass over faults of stderr: what nobody can read is no reason to end a run."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        yield


def _listen(stage: Stage, start: bool) -> None:
    """Start or stop to listen to JAX's compilations, where JAX is imported."""
    if "jax" not in sys.modules:  # heavy; whoever compiles has imported it
        return
    from jax import monitoring

    if start:
        monitoring.register_scalar_listener(stage.on_compilation_start)
        monitoring.register_event_duration_secs_listener(stage.on_compilation_end)
    else:
        with contextlib.suppress(ValueError, AssertionError):  # JAX was imported since the start
            monitoring.unregister_scalar_listener(stage.on_compilation_start)
            monitoring.unregister_event_duration_listener(stage.on_compilation_end)
