"""Ending all processes within seconds when one of them fails, with its reason.

Left alone, the others would wait for it in their next collective operation, and it for them in
JAX's own shutdown: five minutes, or for ever. So a process that fails writes its reason to the
key-value store of JAX's coordination service, which a thread of every process reads once a second.
JAX itself notices a process that is killed (SIGKILL), after `HEARTBEAT`.
"""

import atexit
import contextlib
import json
import os
import re
import sys
import threading
import time
import traceback
from typing import Any, NamedTuple

from jax._src import distributed  # the store has no public name; Orbax takes it from here, too

from dsd_jax.io.terminal import tell

BUG = 1  # exit code of Python after a traceback
HEARTBEAT = 30  # seconds of silence after which JAX takes a process for dead, and ends the others
_POLL_SECONDS = 1.0  # between two reads of the others' failures
_ACK_SECONDS = 5.0  # the process with the store waits so long for the others to read it
_END_MILLISECONDS = 300_000  # a process waits so long at its end for the ends of the others
_FAILURES, _ACKS, _END_BARRIER = "dsd_jax/failure", "dsd_jax/heard", "dsd_jax/end"
# How transports say that the process at the other end is gone.
_GONE = re.compile(r"connection (was )?(closed|reset|refused)|socket closed|remote .*closed", re.I)


class Failure(NamedTuple):
    """The first process that failed, the exit code of all, and the reason."""

    process: int
    code: int
    reason: str


def watch_others() -> None:
    """End this process when another one fails; call it once, after JAX's processes have joined."""
    client, stop = _client(), threading.Event()
    thread = threading.Thread(target=_watch, args=(client, stop), daemon=True, name="failures")
    thread.start()

    def leave() -> None:
        # Until all have come to their end, one of them may fail, in which case the thread ends all.
        with contextlib.suppress(RuntimeError):
            client.wait_at_barrier(_END_BARRIER, _END_MILLISECONDS)
        stop.set()
        thread.join()

    atexit.register(leave)  # before JAX's own shutdown, which was registered when it was imported


def end_together(error: BaseException, code: int) -> None:
    """End this process, which fails with `error`, and all others with the same reason and code.

    Returns only where it is the only process.
    """
    client = _client()
    if client is None or distributed.global_state.num_processes == 1:
        return
    own = Failure(distributed.global_state.process_id, code, _reason(error, code))
    first = _report(client, own)
    if first.process == own.process:
        _show(error, own)
    else:
        time.sleep(3 * _POLL_SECONDS)  # the thread reads it and ends the process
        tell("error", _sentence(first))
    _exit(client, first.code)


def _watch(client: Any, stop: threading.Event) -> None:
    while not stop.wait(_POLL_SECONDS):
        try:
            failures = client.key_value_dir_get(_FAILURES)
        except RuntimeError:  # the store has ended, of which JAX tells the main thread
            return
        if failures:
            first = Failure(*json.loads(failures[0][1]))
            if first.process == distributed.global_state.process_id:
                return  # the main thread ends the process
            tell("error", _sentence(first))
            _exit(client, first.code)


def _report(client: Any, own: Failure) -> Failure:
    """Write a failure into the store; return the first one there, which may have caused it."""
    with contextlib.suppress(RuntimeError):
        client.key_value_set(f"{_FAILURES}/first", json.dumps(own))
    with contextlib.suppress(RuntimeError):
        return Failure(*json.loads(client.key_value_dir_get(_FAILURES)[0][1]))
    return own


def _exit(client: Any, code: int) -> None:
    """End at once: Python's own end would wait for the others."""
    state = distributed.global_state
    with contextlib.suppress(RuntimeError):
        client.key_value_set(f"{_ACKS}/{state.process_id}", "")
        until = time.monotonic() + _ACK_SECONDS
        while state.service is not None and time.monotonic() < until:
            if len(client.key_value_dir_get(_ACKS)) == state.num_processes:
                break
            time.sleep(_POLL_SECONDS / 10)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _show(error: BaseException, own: Failure) -> None:
    if own.code == BUG and not _is_loss(error):
        traceback.print_exception(error)
    else:
        tell("error", own.reason)


def _reason(error: BaseException, code: int) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by the user"
    if code != BUG:
        return str(error)
    if _is_loss(error):
        return (
            "the connection to another process is lost; it was killed, ran out of memory, or its "
            "machine is gone: its own last lines may say more."
        )
    return f"{type(error).__name__}: {error} (a bug; its own output has the traceback)"


def _is_loss(error: BaseException) -> bool:
    """Return whether a collective operation failed because another process is gone."""
    return isinstance(error, RuntimeError | ValueError) and bool(_GONE.search(str(error)))


def _sentence(failure: Failure) -> str:
    return (
        f"process {failure.process} of {distributed.global_state.num_processes} failed, which ends "
        f"all: {failure.reason}"
    )


def _client() -> Any:
    return distributed.global_state.client
