"""A stand-in of the Hugging Face Hub on this machine: repositories that can be made and read."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

TOKEN = "hf_mayWrite"
READER = "hf_mayRead"


class HubServer(ThreadingHTTPServer):
    """Answers the requests that uploading and downloading small files make.

    Attributes:
        repositories: {"org/name": {path: content}}.
        commits: messages, in order.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") not in (f"Bearer {TOKEN}", f"Bearer {READER}"):
            self._json({"error": "Invalid username or password."}, 401)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json({"error": "You don't have the rights to create a model"}, 403)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization'] or 'somebody'}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            self._json({"url": f"{self.server.endpoint}/{name}", "name": name})
        elif match := re.match(r"/api/models/([\w-]+/[\w.-]+)/(preupload|commit)/main", self.path):
            answer = self._preupload if match[2] == "preupload" else self._commit
            answer(match[1], body)
        else:
            self._json({"error": "not found"}, 404)

    def _preupload(self, name: str, body: bytes):
        files = [
            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
            for file in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def _commit(self, name: str, body: bytes):
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.commits.append(value["summary"])
            else:
                content = base64.b64decode(value["content"])
                self.server.repositories[name][value["path"]] = content
        url = f"{self.server.endpoint}/{name}/commit/{_revision(self.server)}"
        self._json({"success": True, "commitOid": _revision(self.server), "commitUrl": url})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        match = re.match(r"/([\w-]+/[\w.-]+)/resolve/\w+/(.+)", self.path)
        files = self.server.repositories.get(match[1]) if match else None
        if files is None:
            self._json({"error": "Repository not found"}, 401, {"X-Error-Code": "RepoNotFound"})
        elif match[2] not in files:
            self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        else:
            content = files[match[2]]
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            self._answer(content, 200, headers | {"X-Repo-Commit": _revision(self.server)})

    def _json(self, answer, status: int = 200, headers=None):
        self._answer(json.dumps(answer).encode(), status, headers or {})

    def _answer(self, content: bytes, status: int, headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _revision(server: HubServer) -> str:
    return hashlib.sha1(str(len(server.commits)).encode()).hexdigest()


@contextmanager
def local_hub(patch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Meanwhile the Hub's client talks to a server of this process instead of the Hub."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        patch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server
        server.shutdown()
        thread.join()
