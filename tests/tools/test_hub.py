"""Sharing runs, with a local imitation of the Hugging Face Hub's HTTP interface."""

import base64
import hashlib
import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import pytest

from dreamer.agent import Agent
from dreamer.errors import ExportError
from dreamer.exported import read_exported
from dreamer.tools.export import export, push
from dreamer.tools.hub import download
from tests.tools.test_export import make_run

COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """Serves the files of one commit of each repository, {"user/name": {name: content}}."""

    repositories: dict = {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Authorization"] == "Bearer hf_token", "who uploads says who it is"
        if self.path == "/api/repos/create":
            name = json.loads(body)["name"]
            self.repositories.setdefault(f"user/{name}", {})
            self.answer({"url": f"{os.environ['HF_ENDPOINT']}/user/{name}"})
        elif self.path == "/api/validate-yaml":  # of the card
            assert json.loads(body)["content"].startswith("---\nlibrary_name: easydreamer")
            self.answer({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            how = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer({"files": [{"path": file["path"], **how} for file in json.loads(body)["files"]]})
        elif self.path.endswith("/commit/main"):
            name = re.match("/api/models/(.+)/commit/main", self.path)[1]
            files = self.repositories[name]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitUrl": f"{os.environ['HF_ENDPOINT']}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        match = re.fullmatch(r"/(user/[\w.-]+)/resolve/([\w.-]+)/(.+)", self.path)
        repository, revision, name = match.groups() if match else ("", "", "")
        content = self.repositories.get(repository, {}).get(name)
        if content is None or revision not in ("main", COMMIT):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if repository in self.repositories else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self.answer(content, **headers)

    def answer(self, content, **headers):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args):
        pass


def forget_package():
    """Forget the package, so that the next import reads HF_ENDPOINT again."""
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Return the repositories of a local Hub that the installed package uses."""
    if not find_spec("huggingface_hub"):
        pytest.skip("needs huggingface_hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_TOKEN", "hf_token")
        forget_package()
        yield Hub.repositories
        forget_package()
    server.shutdown()
    server.server_close()


def test_pushed_run_can_be_loaded(hub, tmp_path, capsys):
    run, path = make_run(tmp_path / "run", "Vector-v0"), tmp_path / "mine.zip"
    assert export([str(run), str(path), "--episodes", "1"]) == 0
    assert push([str(path), "user/from-file"]) == 0
    assert push([str(run), "user/from-run", "--episodes", "1"]) == 0
    assert "Agent.load('hf://user/from-run')" in capsys.readouterr().out
    assert hub["user/from-file"] == hub["user/from-run"], "the same agent gives the same bytes"
    files = hub["user/from-file"]
    assert set(files) == {"agent.zip", "README.md", "film.gif"}
    assert files["agent.zip"] == path.read_bytes() and files["README.md"].decode() == read_exported(path).card
    for address in ("hf://user/from-file", f"hf://user/from-file@{COMMIT}"):
        assert Agent.load(address).act([0.5]) == Agent.load(path).act([0.5])


def test_hub_errors_are_one_line(hub, tmp_path, capsys):
    hub["user/empty"] = {}
    for address, words in (
        ("hf://user/none", "RepositoryNotFoundError: "),
        ("hf://user/empty", "EntryNotFoundError: "),
        ("hf://name", "expected hf://user/name"),
    ):
        with pytest.raises(ExportError) as raised:
            download(address)
        assert words in str(raised.value) and "\n" not in str(raised.value)
    (tmp_path / "no.zip").write_bytes(b"PK")
    assert push([str(tmp_path / "no.zip"), "user/empty"]) == 2 and hub["user/empty"] == {}
    assert "is not an exported agent" in capsys.readouterr().err


def test_missing_package_error_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ExportError, match=r"^hf://user/name needs huggingface_hub.*pip install 'easydreamer\[hub\]'"):
        Agent.load("hf://user/name")
