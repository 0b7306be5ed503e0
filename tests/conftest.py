"""What several test files share: the golden models, put together from `tests/fixtures/goldens`."""

import contextlib
import ctypes
import gc
import json
import lzma
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import install_import_hook
from safetensors.numpy import load, save_file

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # tolerances are those of float32 on any machine
os.environ.setdefault("DSD_COMPILATION_CACHE", "0")  # tests see what is compiled from this code
# Where launch/test.sh puts a TPU's compiler; JAX outside the tests complains where there is no TPU.
sys.path.append(str(Path(sys.prefix) / "planning"))

# Shapes and dtypes that annotations give are checked in every test that calls such a function.
WITH_SHAPES = {
    "dsd_jax.models": "attention resnet transformer",  # whole networks take NumPy arrays, too
    "dsd_jax.diffusion": "noising",
    "dsd_jax.matching": "score_functions",
    "dsd_jax.statistics": "metrics standard_errors",
    "dsd_jax.training": "losses",
}
install_import_hook(
    [f"{package}.{name}" for package, names in WITH_SHAPES.items() for name in names.split()],
    "beartype.beartype",
)

GOLDENS = Path(__file__).parent / "fixtures" / "goldens"
MOST_MEMORY = 2_000_000_000  # bytes of a worker, above which it forgets what it has compiled
EMBEDDING = "text_model.embeddings.token_embedding.weight"
VOCABULARY = 49_408


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    """Forget compiled programs after a module once the process is large: they are never freed."""
    yield
    if "jax" in sys.modules and resident_bytes() > MOST_MEMORY:
        import jax

        jax.clear_caches()
        gc.collect()
        return_memory()


def resident_bytes() -> int:
    """Return how much memory this process holds; 0 where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def return_memory() -> None:
    """Have the C library give freed memory back to the system, where it is glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@pytest.fixture(scope="module")
def quickly_compiled() -> Iterator[None]:
    """For a module's tests programs are compiled in half the time, to run slower."""
    from tests.few_shots import quick_compilation  # heavy: most tests of commands need no JAX

    with quick_compilation():
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, as Debian's package or `playwright install chromium` put it there."""
    from playwright.sync_api import sync_playwright  # heavy: for tests of pages alone

    with sync_playwright() as playwright:
        path = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip(
                "there is no chromium; install Debian's, or run playwright install chromium"
            )
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def golden_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`golden_folder("tiny-sd15" | "tiny-sd21")`: a checkpoint in the Hugging Face layout.

    The folder also holds that model's `*.npz` and `lora/`. It is shared by all tests of a session:
    copy it before changing anything in it.
    """
    folders = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = assemble(GOLDENS / name, tmp_path_factory.mktemp("goldens") / name)
        return folders[name]

    return folder


def assemble(source: Path, folder: Path) -> Path:
    """Copies the golden model `source`, which is stored small, to `folder` in the usual layout."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.xz"))
    for packed in source.glob("*/diffusion_pytorch_model.safetensors.xz"):
        (folder / packed.parent.name / packed.stem).write_bytes(
            lzma.decompress(packed.read_bytes())
        )
    packed = source / "text_encoder" / "few_tokens.safetensors.xz"
    tensors = load(lzma.decompress(packed.read_bytes()))
    rows = tensors[EMBEDDING]
    noise = np.random.default_rng(0).normal(size=(VOCABULARY, rows.shape[1]))
    tensors[EMBEDDING] = (0.5 * noise).astype(rows.dtype)  # as spread as the original
    tensors[EMBEDDING][tensors.pop("token_ids")] = rows
    save_file(tensors, folder / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder / "tokenizer")
    return folder


def write_tokenizer(folder: Path) -> None:
    """Writes CLIP's `merges.txt`, and `vocab.json`, which follows from it."""
    merges = lzma.decompress((GOLDENS / "merges.txt.xz").read_bytes()).decode()
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    pairs = [line for line in merges.split("\n")[1:] if line]
    letters = byte_letters()
    tokens = letters + [letter + "</w>" for letter in letters] + [p.replace(" ", "") for p in pairs]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")


def byte_letters() -> list[str]:
    """The 256 characters by which GPT-2 and CLIP write bytes: printable ones, then the others."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    others = range(256, 256 + 256 - len(plain))
    return [chr(code) for code in [*plain, *others]]
