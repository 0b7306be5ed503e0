"""A bucket on this machine, which gs:// leads to meanwhile."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def bucket() -> Iterator[str]:
    """Yields the address of an empty bucket; it works in this process and in those it starts.

    TensorStore and Google's clients read the environment once, so one bucket has to do for all
    tests of a process.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.bucket_server", str(port)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)  # gcsfs and google-cloud-storage
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", url)  # the arrays of checkpoints
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # no kinds of buckets here
        patch.setattr("gcsfs.GCSFileSystem._mv_file", copy_and_delete)
        try:
            wait_for(url)
            yield "gs://bucket"
        finally:
            server.kill()
            server.wait()


def copy_and_delete(system, *paths, **options):
    """What gcsfs does after having tried for half a minute to move, which this server can't."""
    import gcsfs  # after the environment has been set

    return super(gcsfs.GCSFileSystem, system)._mv_file(*paths, **options)


def wait_for(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{url}/storage/v1/b/bucket", timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nothing answers at {url}")
