"""Models on the Hub, without a network: a stand-in for its client, or a cache made by hand."""

import json
import shutil
from fnmatch import fnmatch
from types import SimpleNamespace

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from dsd_jax.errors import UserError
from dsd_jax.models.params import weights_digest
from dsd_jax.weights import hub
from dsd_jax.weights.model_folder import LAYOUT, STABLE_DIFFUSION
from dsd_jax.weights.model_loading import load

NEEDED = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
}
UNNEEDED = {
    ".gitattributes",
    "README.md",
    "v1-5-pruned-emaonly.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_flax_model.msgpack",
    "vae/diffusion_flax_model.msgpack",
    "text_encoder/flax_model.msgpack",
    "text_encoder/pytorch_model.bin",
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "feature_extractor/preprocessor_config.json",
    "unet_ema/diffusion_pytorch_model.safetensors",
}


class Hub:
    """Stands in for the Hub's client: lists files, and "downloads" by returning a folder."""

    def __init__(self, files, snapshot=None, error=None):
        self.files, self.snapshot, self.error = files, snapshot, error
        self.patterns = self.revision = None
        self.downloads = 0

    def model_info(self, repo, revision=None, timeout=None):
        if self.error:
            raise self.error
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in self.files])

    def snapshot_download(self, repo, *, revision=None, allow_patterns=None):
        self.patterns, self.revision = allow_patterns, revision
        self.downloads += 1
        if self.snapshot is None:
            raise self.error
        return str(self.snapshot)

    def fetched(self):
        return {f for f in self.files if any(fnmatch(f, pattern) for pattern in self.patterns)}


def replace(monkeypatch, fake: Hub) -> Hub:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


def response(status: int) -> httpx2.Response:
    return httpx2.Response(status, request=httpx2.Request("GET", "https://huggingface.co/x"))


def refusal(where: str) -> str:
    with pytest.raises(UserError) as error:
        load(where)
    text = str(error.value)
    assert "\n" not in text and text.endswith(".")
    return text


def test_only_what_is_needed_is_fetched(folder, digest, monkeypatch):
    fake = replace(monkeypatch, Hub(sorted(NEEDED | UNNEEDED), folder.path))
    model = load("org/name@v2")
    assert weights_digest(model.params) == digest
    assert model.name == "org/name@v2"
    assert fake.revision == "v2"
    assert fake.fetched() == NEEDED


def test_a_model_of_another_kind_is_refused_before_its_weights_are_fetched(folder, monkeypatch):
    fake = replace(monkeypatch, Hub(sorted(NEEDED | UNNEEDED), folder.path))
    file = folder.path / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"in_channels": 9}))
    assert "in_channels 9" in refusal("org/inpainting")
    assert fake.downloads == 1
    assert all(name.endswith(".json") for name in fake.fetched())


def test_msgpack_is_fetched_where_there_is_nothing_else():
    stems = {"unet": "diffusion_flax_model", "vae": "diffusion_flax_model"}
    files = [f"{part}/{stem}.msgpack" for part, stem in stems.items()]
    files += ["text_encoder/flax_model.msgpack", "text_encoder/pytorch_model.bin"]
    assert set(files[:3]) < set(hub.needed(files, "org/name", STABLE_DIFFUSION))


def test_all_shards_are_fetched():
    stem = "unet/diffusion_pytorch_model"
    shards = [f"{stem}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = f"{stem}.safetensors.index.json"
    other = ["vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
    files = [index, *shards, f"{stem}.fp16.bin", *other]
    assert {index, *shards, *other} == {
        f for f in hub.needed(files, "x", STABLE_DIFFUSION) if f in files
    }


def test_sdxl_is_fetched_with_both_encoders_and_tokenizers():
    second = {name.replace("/", "_2/") for name in NEEDED if name.startswith(("text", "token"))}
    others = {"vae_1_0/config.json", "unet/model.onnx", "text_encoder_2/model.fp16.safetensors"}
    files = sorted(NEEDED | second | others)
    patterns = hub.needed(files, "x", STABLE_DIFFUSION)
    found = {f for f in files if any(fnmatch(f, pattern) for pattern in patterns)}
    assert found == NEEDED | second and "text_encoder_2/model.safetensors" in second


def test_other_architectures_are_refused_before_anything_is_fetched(monkeypatch):
    files = ["transformer/config.json", "vae/config.json", "model_index.json"]
    fake = replace(monkeypatch, Hub(files))
    assert refusal("org/flux").startswith("org/flux has a transformer/ instead of a unet/")
    assert fake.downloads == 0


def test_repository_with_pickles_alone(monkeypatch):
    replace(monkeypatch, Hub(["unet/diffusion_pytorch_model.bin", "unet/config.json"]))
    assert "org/name/unet holds its weights only as a PyTorch pickle" in refusal("org/name")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.RepositoryNotFoundError("404", response=response(404)), "the Hub has no public"),
        (errors.GatedRepoError("403", response=response(403)), "org/name@v2 is gated: accept its"),
        (errors.RevisionNotFoundError("404", response=response(404)), "has no such revision"),
        (errors.HFValidationError("bad"), "is not a name of a model on the Hub"),
        (errors.LocalEntryNotFoundError("no"), "because the Hub can't be reached (no network"),
        (httpx2.ReadTimeout("slow\nvery"), "could not be fetched from the Hub (ReadTimeout: slow)"),
        (OSError("No space left on device"), "(OSError: No space left on device)"),
    ],
)
def test_errors_of_the_hub_are_one_sentence(monkeypatch, error, message):
    replace(monkeypatch, Hub([], error=error))
    text = refusal("org/name@v2")
    assert message in text
    assert text.endswith("; or give " + LAYOUT + " instead.")


def unreachable(cause: Exception) -> Exception:
    """What the Hub's client raises where asking failed and the cache has nothing."""
    error = errors.LocalEntryNotFoundError("an error happened while trying to locate the files")
    error.__cause__ = cause
    return error


def refused(status: int, said: str | None = None) -> Exception:
    return errors.HfHubHTTPError("no", response=response(status), server_message=said)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (unreachable(refused(429)), "the Hub refuses it (HTTP 429: too many requests; wait some"),
        (unreachable(refused(429, "slow down")), "the Hub refuses it (HTTP 429: slow down)"),
        (unreachable(refused(503)), "the Hub refuses it (HTTP 503: the Hub is out of service"),
        (unreachable(refused(403, "disabled")), "the Hub refuses it (HTTP 403: disabled)"),
        (unreachable(refused(451)), "(HTTP 451: not available for legal reasons)"),
        (refused(401, "Invalid credentials"), "from the Hub (HTTP 401: Invalid credentials)"),
        (
            unreachable(httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed")),
            "the Hub can't be reached (its certificate is not trusted",
        ),
        (
            unreachable(httpx2.ConnectError("[Errno -2] Name or service not known")),
            "can't be reached (ConnectError: [Errno -2] Name or service not known)",
        ),
        (
            json.JSONDecodeError("Expecting value", "<html>", 0),
            "does a login page stand in between",
        ),
    ],
)
def test_why_the_hub_does_not_answer(monkeypatch, error, message):
    replace(monkeypatch, Hub([], error=error))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert message in refusal("org/name@v2")


@pytest.mark.parametrize("error", [refused(401), unreachable(refused(401))])
def test_a_token_that_is_not_valid(monkeypatch, error):
    replace(monkeypatch, Hub([], error=error))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_expired")
    assert "the Hub does not accept the token in HF_TOKEN" in refusal("org/name")


def cache(folder, monkeypatch, tmp_path, revision="main"):
    """Lays `folder` out as the Hub's client does in its cache, and takes the network away."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "cache" / "models--org--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / revision).write_text(commit)
    shutil.copytree(folder.path, repo / "snapshots" / commit)
    offline(monkeypatch, tmp_path)


def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("where", ["org/name", "org/name@main"])
def test_offline_with_a_cached_snapshot(folder, digest, monkeypatch, tmp_path, where):
    cache(folder, monkeypatch, tmp_path)
    assert weights_digest(load(where).params) == digest


def test_offline_without_one(monkeypatch, tmp_path):
    offline(monkeypatch, tmp_path)
    text = refusal("org/name")
    assert "the Hub can't be reached" in text and "HF_HUB_OFFLINE" in text and "unet/, vae/" in text


def test_offline_with_another_revision(folder, monkeypatch, tmp_path):
    cache(folder, monkeypatch, tmp_path)
    assert "org/name@other could not be fetched" in refusal("org/name@other")


def test_offline_with_files_missing_that_nobody_needs(folder, digest, monkeypatch):
    error = errors.IncompleteSnapshotError("flax is missing", snapshot_path=str(folder.path))
    replace(monkeypatch, Hub([], error=error))
    assert weights_digest(load("org/name").params) == digest


def test_offline_with_an_incomplete_snapshot(folder, monkeypatch, tmp_path):
    folder.file("vae").unlink()
    cache(folder, monkeypatch, tmp_path)
    assert "vae holds no weights" in refusal("org/name")
