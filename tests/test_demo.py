"""The command `demo`: its options, and what it says where it cannot start."""

import importlib.util
import socket
import subprocess
import sys
from unittest.mock import Mock

import pytest

from dsd_jax import demo
from dsd_jax.errors import UserError
from dsd_jax.web import demo_server
from dsd_jax.web.demo_requests import prompt_folders


def test_it_listens_on_this_machine_alone_and_shares_nothing_by_default():
    flags = demo.make_parser().parse_args([])
    assert (flags.host, flags.port, flags.share, flags.weights) == (
        "127.0.0.1",
        None,
        False,
        "tiny",
    )


def test_help_needs_no_gradio_and_no_jax():
    code = (
        "import sys; from dsd_jax.demo import make_parser\n"
        "try: make_parser().parse_args(['--help'])\n"
        "except SystemExit: assert not {'gradio', 'jax', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--share" in done.stdout


def test_without_gradio_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "dsd-jax\[demo\]"'):
        demo.main([])


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_out_of_range_is_refused(port):
    with pytest.raises(UserError, match=f"--port={port} should be from 1 to 65535"):
        demo.main([f"--port={port}"])


def test_prompts_are_found_in_folders_by_names_that_tell_them_apart(tmp_path):
    for name in ("a/seed-0", "b/seed-0"):
        (tmp_path / "prompts" / name).mkdir(parents=True)
        (tmp_path / "prompts" / name / "prompts.json").write_text("{}")
    found = prompt_folders(tmp_path / "prompts")
    assert list(found) == ["prompts/a/seed-0", "prompts/b/seed-0"]
    assert list(prompt_folders(found["prompts/a/seed-0"])) == ["seed-0"]


def test_folders_without_prompts_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no prompts\.json in it"):
        prompt_folders(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        prompt_folders(tmp_path / "nowhere")


def test_a_port_in_use_is_a_sentence_before_the_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sentence = rf"cannot listen at 127\.0\.0\.1, port {port} \(address already in use\)"
        with pytest.raises(UserError, match=sentence):
            demo.main([f"--port={port}", "--weights=nowhere"])


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_another_machine_is_a_sentence(host):
    with pytest.raises(UserError, match=f"cannot listen at {host}, a port from 7860 on"):
        demo.main([f"--host={host}", "--weights=nowhere"])


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError("no port"), r"cannot listen at 127.0.0.1, port 80 \(in use\)"),
        (ValueError("no localhost"), "cannot reach its own address on 127.0.0.1; a proxy"),
    ],
)
def test_what_keeps_gradio_from_serving_is_a_sentence(error, sentence, tmp_path):
    page = Mock()
    page.launch.side_effect = error
    with pytest.raises(UserError, match=sentence):
        demo_server._launch(page, demo_server.ServerOptions(port=80), tmp_path)
