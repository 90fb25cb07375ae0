"""A server that speaks the part of the Hub's HTTP API that models need: it stores what it is sent, and checks it.

    python hub_server.py STORE --token TOKEN [--cut-after N]

It prints its address, keeps everything under ``STORE`` (started again on it, it knows it), and wants the token for all
that is private or written. Large files come by the LFS protocol (batch, PUT, verify) and are compared with their
SHA-256; a commit that names one that was not sent, deletes what is not there, or has a card or an ``.eval_results``
file that is not valid, is refused. ``--cut-after N`` closes the connection in the middle of every PUT after the first
N, as a network that fails. ``GET /_log`` lists the requests so far.
"""

import argparse
import base64
import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from huggingface_hub import ModelCardData, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results

LFS_ENDINGS = (".safetensors", ".gguf", ".bin")
LFS_FROM = 1_000_000
POINTER_SIZE = 130


class Refused(Exception):
    """An answer with an error."""

    def __init__(self, status: int, message: str, code: str = ""):
        super().__init__(message)
        self.status, self.code = status, code


class Store:
    """Blobs by SHA-256, and for each repository its commits and branches, as files."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        self.state = folder / "repos.json"
        self.repos: dict[str, Any] = json.loads(self.state.read_text()) if self.state.exists() else {}
        self.lock = threading.Lock()

    def save(self) -> None:
        self.state.write_text(json.dumps(self.repos))

    def blob(self, sha: str) -> Path:
        return self.folder / "blobs" / sha

    def put(self, content: bytes) -> str:
        sha = hashlib.sha256(content).hexdigest()
        self.blob(sha).write_bytes(content)
        return sha

    def repo(self, name: str, authorized: bool) -> Any:
        found = self.repos.get(name)
        if found is None or (found["private"] and not authorized):
            raise Refused(404 if authorized else 401, "Repository not found", "RepoNotFound")
        return found

    def commit_of(self, repo: Any, revision: str) -> str:
        sha = repo["branches"].get(revision, revision)
        if sha not in repo["commits"]:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    def files_of(self, repo: Any, revision: str) -> dict[str, Any]:
        return repo["commits"][self.commit_of(repo, revision)]["files"]


def check_card(text: str) -> list[str]:
    """What the Hub would not take of a card's metadata."""
    if not text.startswith("---\n"):
        return []
    try:
        block = yaml.safe_load(text.split("---\n")[1])
        data = ModelCardData(**block)
        name, results = model_index_to_eval_results(block["model-index"]) if "model-index" in block else ("x", [])
    except Exception as error:
        return [f"the metadata cannot be read: {error!r}"]
    errors = [] if name else ["model-index has no name"]
    errors += [f"{result.metric_name}: no number" for result in results if not isinstance(result.metric_value, float)]
    if not isinstance(data.license, str):
        errors.append('"license" is missing')
    bases = [data.base_model] if isinstance(data.base_model, str) else data.base_model or []
    errors += [f'"base_model" {base} is no model id' for base in bases if base.count("/") != 1]
    return errors


def entry(path: str, file: Any) -> dict[str, Any]:
    shown = {"type": "file", "path": path, "size": file["size"], "oid": file["oid"]}
    if file["lfs"]:
        shown["lfs"] = {"oid": file["sha256"], "size": file["size"], "pointerSize": POINTER_SIZE}
    return shown


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store
    token: str
    cut_after: int | None = None
    puts = 0
    log: list[str] = []

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        if self.path != "/_log":
            self.log.append(f"{self.command} {self.path}")
        self.authorized = self.headers.get("Authorization") == f"Bearer {self.token}"
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        words = [unquote(word) for word in parts.path.strip("/").split("/")]
        try:
            self._route(words)
        except Refused as refused:
            body = json.dumps({"error": str(refused)}).encode()
            self._send(refused.status, body, {"X-Error-Code": refused.code, "X-Error-Message": str(refused)})

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, content: Any, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _route(self, words: list[str]) -> None:
        if words == ["_log"]:
            self._json(self.log)
        elif words[:1] == ["_lfs"]:
            self._put(words[1])
        elif words[:1] == ["_cdn"]:
            self._file(self.store.blob(words[1]).read_bytes(), words[1], "")
        elif words == ["api", "repos", "create"]:
            self._create()
        elif words == ["api", "validate-yaml"]:
            errors = check_card(json.loads(self._body())["content"])
            self._json({"errors": [{"message": each} for each in errors], "warnings": []}, 400 if errors else 200)
        elif words[:2] == ["api", "models"]:
            self._api("/".join(words[2:4]), words[4:])
        elif len(words) > 1 and words[1].endswith(".git"):
            self._batch()
        elif len(words) > 4 and words[2] == "resolve":
            self._resolve("/".join(words[:2]), words[3:])
        else:
            raise Refused(404, f"no such route: {self.path}")

    def _write_only(self) -> None:
        if not self.authorized:
            raise Refused(401, "Invalid username or password.")

    def _create(self) -> None:
        asked = json.loads(self._body())
        self._write_only()
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        url = f"http://{self.headers['Host']}/{name}"
        with self.store.lock:
            if name in self.store.repos:
                self._json({"error": "You already created this model repo", "url": url}, 409)
                return
            private = asked.get("visibility") == "private" or asked.get("private") is True
            first = hashlib.sha1(name.encode()).hexdigest()
            commits = {first: {"files": {}, "parent": None, "summary": "initial commit"}}
            self.store.repos[name] = {"private": private, "commits": commits, "branches": {"main": first}}
            self.store.save()
        self._json({"url": url})

    def _api(self, name: str, words: list[str]) -> None:
        repo = self.store.repo(name, self.authorized)
        if self.command == "POST" and words[0] != "paths-info":
            body = self._body()
            self._write_only()
        match words:
            case [] | ["revision", _]:
                sha = self.store.commit_of(repo, words[1] if words else "main")
                files = [{"rfilename": path} for path in repo["commits"][sha]["files"]]
                self._json({"id": name, "sha": sha, "private": repo["private"], "siblings": files, "tags": []})
            case ["tree", revision, *below]:
                self._tree(repo, revision, "/".join(below))
            case ["paths-info", revision]:
                wanted = json.loads(self._body())["paths"]
                files = self.store.files_of(repo, revision)
                self._json([entry(path, files[path]) for path in wanted if path in files])
            case ["refs"]:
                branches = [{"name": n, "ref": n, "targetCommit": c} for n, c in repo["branches"].items()]
                self._json({"branches": branches, "tags": [], "converts": []})
            case ["branch", branch]:
                if branch in repo["branches"]:
                    raise Refused(409, "Reference already exists")
                repo["branches"][branch] = repo["branches"]["main"]
                self.store.save()
                self._json({})
            case ["preupload", revision]:
                self._preupload(repo, revision, json.loads(body))
            case ["commit", revision]:
                self._commit(name, repo, revision, [json.loads(line) for line in body.splitlines()])
            case _:
                raise Refused(404, f"no such route: {self.path}")

    def _tree(self, repo: Any, revision: str, below: str) -> None:
        files = self.store.files_of(repo, revision)
        found = [entry(p, f) for p, f in sorted(files.items()) if not below or p.startswith(f"{below}/")]
        if below and not found:
            raise Refused(404, f"{below} does not exist", "EntryNotFound")
        self._json(found)

    def _preupload(self, repo: Any, revision: str, asked: Any) -> None:
        files = self.store.files_of(repo, revision)
        answers = []
        for file in asked["files"]:
            assert len(base64.b64decode(file["sample"])) == min(512, file["size"])
            large = file["path"].endswith(LFS_ENDINGS) or file["size"] > LFS_FROM
            oid = files.get(file["path"], {}).get("oid")
            mode = "lfs" if large else "regular"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answers})

    def _batch(self) -> None:
        asked = json.loads(self._body())
        self._write_only()
        host, answers = f"http://{self.headers['Host']}", []
        for wanted in asked["objects"]:
            answer = dict(wanted)
            if not self.store.blob(wanted["oid"]).exists():
                answer["actions"] = {"upload": {"href": f"{host}/_lfs/{wanted['oid']}"}}
            answers.append(answer)
        self._json({"transfer": "basic", "objects": answers})

    def _put(self, oid: str) -> None:
        Handler.puts += 1
        if self.cut_after is not None and self.puts > self.cut_after:
            self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
            self.connection.close()
            return
        content = self._body()
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refused(400, "the content is not what was announced")
        self.store.put(content)
        self._json({})

    def _commit(self, name: str, repo: Any, revision: str, lines: list[Any]) -> None:
        with self.store.lock:
            request = "create_pr" in self.query
            parent = self.store.commit_of(repo, revision)
            header = next(line["value"] for line in lines if line["key"] == "header")
            if header.get("parentCommit") not in (None, parent):
                raise Refused(412, "The branch has moved")
            files = dict(repo["commits"][parent]["files"])
            for line in lines:
                self._change(files, line["key"], line["value"])
            sha = hashlib.sha1(json.dumps([parent, header, files], sort_keys=True).encode()).hexdigest()
            repo["commits"][sha] = {"files": files, "parent": parent, "summary": header["summary"]}
            number = sum(branch.startswith("refs/pr/") for branch in repo["branches"]) + 1
            branch = f"refs/pr/{number}" if request else revision
            repo["branches"][branch] = sha
            self.store.save()
        host = f"http://{self.headers['Host']}/{name}"
        url = f"{host}/discussions/{number}" if request else None
        self._json({"success": True, "commitOid": sha, "commitUrl": f"{host}/commit/{sha}", "pullRequestUrl": url})

    def _change(self, files: dict[str, Any], key: str, value: Any) -> None:
        if key in ("deletedFile", "deletedFolder"):
            if value["path"] not in files:
                raise Refused(400, f"{value['path']} is not there")
            del files[value["path"]]
        elif key == "file":
            content = base64.b64decode(value["content"])
            if value["path"] == "README.md" and (errors := check_card(content.decode())):
                raise Refused(400, errors[0])
            if value["path"].startswith(".eval_results/"):
                entries = parse_eval_result_entries(yaml.safe_load(content))
                assert all(each.dataset_id.count("/") == 1 and each.task_id for each in entries)
            oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            sha = self.store.put(content)
            files[value["path"]] = {"sha256": sha, "size": len(content), "oid": oid, "lfs": False}
        elif key == "lfsFile":
            blob = self.store.blob(value["oid"])
            if not blob.exists() or value.get("size", blob.stat().st_size) != blob.stat().st_size:
                raise Refused(400, f"{value['path']} was not uploaded")
            oid = hashlib.sha1(value["oid"].encode()).hexdigest()
            files[value["path"]] = {"sha256": value["oid"], "size": blob.stat().st_size, "oid": oid, "lfs": True}

    def _resolve(self, name: str, words: list[str]) -> None:
        repo = self.store.repo(name, self.authorized)
        sha = self.store.commit_of(repo, words[0])
        file = repo["commits"][sha]["files"].get("/".join(words[1:]))
        if file is None:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}
            self._send(404, b"Entry not found", headers)
        elif file["lfs"]:
            linked = {"X-Linked-Etag": f'"{file["sha256"]}"', "X-Linked-Size": str(file["size"])}
            other_host = f"localhost:{self.server.server_port}"  # clients ask another host for large files
            where = {"Location": f"http://{other_host}/_cdn/{file['sha256']}", "X-Repo-Commit": sha}
            self._send(302, b"", {**linked, **where})
        else:
            self._file(self.store.blob(file["sha256"]).read_bytes(), file["oid"], sha)

    def _file(self, content: bytes, etag: str, commit: str) -> None:
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if asked:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(206, content[start:], headers)
        else:
            self._send(200, content, headers)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("--token", required=True)
    parser.add_argument("--cut-after", type=int)
    args = parser.parse_args()
    Handler.store, Handler.token, Handler.cut_after = Store(args.store), args.token, args.cut_after
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
