"""A Hugging Face Hub on loopback: what the client libraries ask of it, and how it can fail.

    with serve() as (hub, url):
        hub.put("dataset", "lab/digits", {"data/train-0.parquet": rows})
        hub.gate("dataset", "lab/digits")
        subprocess.run(command, env=env(url, home))

Models and data sets can be read (whole or by range), created, committed to and pushed to, also as
large files (LFS). The client reads its environment when it is imported, so it runs in a process of
its own. Standard library only.
"""

import base64
import hashlib
import json
import os
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DATE = "2026-01-01T00:00:00.000Z"
USER = "tester"
LARGE = (
    ".parquet",
    ".safetensors",
    ".bin",
)  # kept as large files, as .gitattributes has it on the Hub
LARGE_BYTES = 10_000_000  # and so is anything above this size
ALWAYS = -1
EXPIRED = "hf_expired"  # a token that the Hub no longer knows


def git_sha1(content: bytes) -> str:
    "The id that git gives a file."
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str, size: int) -> bool:
    "Whether the Hub keeps a file apart from git."
    return path.endswith(LARGE) or size > LARGE_BYTES


@dataclass(frozen=True)
class Commit:
    "One state of a repository."

    sha: str
    title: str
    files: Mapping[str, bytes]


@dataclass
class Fault:
    "A way to fail, for so many requests."

    status: int = 0  # what is answered instead; 0 = the connection breaks half-way through a file
    times: int = ALWAYS
    after: int = 0  # requests that go well first
    within: str = ""  # what a file's path has in it, to fail for that one alone

    def strikes(self, path: str = "") -> bool:
        "Whether a request, for the file `path` if for one, fails; counts it."
        if self.within not in path:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times == 0:
            return False
        self.times -= self.times > 0
        return True


@dataclass
class Repository:
    "A model or a data set with its history, and how it misbehaves."

    kind: str  # model, dataset
    id: str  # owner/name
    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(
        default_factory=dict
    )  # name -> sha, e.g. main, refs/convert/parquet
    gated: bool = False
    fault: Fault = field(default_factory=lambda: Fault(times=0))

    def commit(self, files: Mapping[str, bytes], title: str, branch: str) -> Commit:
        "A new state at the head of `branch`."
        state = [
            len(self.commits),
            branch,
            title,
            sorted((path, git_sha1(content)) for path, content in files.items()),
        ]
        new = Commit(hashlib.sha1(json.dumps(state).encode()).hexdigest(), title, dict(files))
        self.commits.append(new)
        self.branches[branch] = new.sha
        return new

    def at(self, revision: str | None) -> Commit | None:
        "The state that a branch or a commit id names."
        sha = self.branches.get((revision or "main").removeprefix("refs/heads/"), revision)
        return next((commit for commit in self.commits if commit.sha == sha), None)


class Hub:
    "All repositories, and a log of what was asked for."

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large_files: dict[str, bytes] = {}  # by sha256
        self.log: list[tuple[str, str, int]] = []  # method, path, status
        self.lock = threading.Lock()

    def put(
        self,
        kind: str,
        id: str,
        files: Mapping[str, bytes],
        branch: str = "main",
        title: str = "seed",
    ) -> str:
        "Add files to a repository, made if need be; the new commit's sha."
        with self.lock:
            repository = self.repositories.setdefault((kind, id), Repository(kind, id))
            before = repository.at(branch)
            return repository.commit(
                {**(before.files if before else {}), **files}, title, branch
            ).sha

    def files(self, kind: str, id: str, revision: str = "main") -> Mapping[str, bytes]:
        "What a repository holds, for a test to look at what was pushed."
        return self.repositories[kind, id].at(revision).files

    def gate(self, kind: str, id: str) -> None:
        "Refuse the files: 401 without a token, 403 with one."
        self.repositories[kind, id].gated = True

    def fail(self, kind: str, id: str, status: int, times: int = ALWAYS, after: int = 0) -> None:
        "Answer requests for this repository with `status`, 429 or 500 say."
        self.repositories[kind, id].fault = Fault(status, times, after)

    def cut(self, kind: str, id: str, times: int = ALWAYS, within: str = "") -> None:
        "Close the connection where a large file's second half begins."
        self.repositories[kind, id].fault = Fault(0, times, within=within)


@dataclass(frozen=True)
class Request:
    "What a handler needs to know."

    path: tuple[str, ...]  # the groups of the route, unquoted
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    url: str  # of the server

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ").strip()

    def json(self) -> dict:
        if "json" in self.headers.get("Content-Type", ""):
            return json.loads(self.body)
        return urllib.parse.parse_qs(self.body.decode())


@dataclass(frozen=True)
class Answer:
    "What goes back."

    body: object = b""  # bytes, or anything JSON can say
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None  # bytes after which the connection breaks

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Refusal(Exception):
    "An error answer, with the code by which the client library knows it."

    def __init__(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        named = {"X-Error-Code": code, "X-Error-Message": message or code}
        self.answer = Answer(
            {"error": message or code}, status, {k: v for k, v in {**named, **headers}.items() if v}
        )


ROUTES: list[tuple[str, re.Pattern[str], Callable[[Hub, Request], Answer]]] = []
KIND, ID, REVISION = r"(model|dataset)s", r"([^/]+/[^/]+)", r"([^/]+)"


def route(methods: str, pattern: str) -> Callable:
    "Register the handler of a path."

    def register(handler: Callable[[Hub, Request], Answer]) -> Callable[[Hub, Request], Answer]:
        ROUTES.extend((method, re.compile(pattern), handler) for method in methods.split())
        return handler

    return register


def find(hub: Hub, request: Request, kind: str, id: str) -> Repository:
    "The repository asked for. Without a token the Hub doesn't say whether one exists."
    if request.token == EXPIRED:
        raise Refusal(401, "", "Invalid credentials in Authorization header")
    repository = hub.repositories.get((kind, id))
    if repository is None:
        raise Refusal(404 if request.token else 401, "RepoNotFound", "Repository not found")
    if repository.fault.status and repository.fault.strikes():
        raise Refusal(repository.fault.status, "", f"fault {repository.fault.status}")
    return repository


def state(repository: Repository, revision: str | None) -> Commit:
    commit = repository.at(revision)
    if commit is None:
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return commit


def let_in(repository: Repository, request: Request) -> None:
    "Refuse who was not given access to a gated repository."
    if repository.gated:
        restricted = f"Access to {repository.kind} {repository.id} is restricted"
        raise Refusal(403 if request.token else 401, "GatedRepo", restricted)


def need_token(request: Request) -> None:
    if not request.token:
        raise Refusal(401, "", "Invalid username or password.")


# Who is asking, and what is there


@route("GET", "/api/whoami-v2")
def who_am_i(hub: Hub, request: Request) -> Answer:
    need_token(request)
    return Answer(
        {"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": {"role": "write"}}}
    )


@route("GET", f"/api/{KIND}/{ID}/auth-check")
def check_access(hub: Hub, request: Request) -> Answer:
    let_in(find(hub, request, *request.path), request)
    return Answer({})


@route("GET", f"/api/{KIND}/{ID}(?:/revision/{REVISION})?")
def describe(hub: Hub, request: Request) -> Answer:
    kind, id, revision = request.path
    repository = find(hub, request, kind, id)
    commit = state(repository, revision)
    return Answer(
        {
            "_id": "0" * 24,
            "id": id,
            "modelId": id,
            "author": id.split("/")[0],
            "sha": commit.sha,
            "private": False,
            "gated": "auto" if repository.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "createdAt": DATE,
            "lastModified": DATE,
            "cardData": None,
            "siblings": [
                {"rfilename": path, "size": len(content)} for path, content in commit.files.items()
            ],
        }
    )


@route("GET", f"/api/{KIND}/{ID}/refs")
def list_refs(hub: Hub, request: Request) -> Answer:
    branches = find(hub, request, *request.path).branches
    refs = [
        {
            "name": name.removeprefix("refs/convert/"),
            "targetCommit": sha,
            "ref": name if name.startswith("refs/") else f"refs/heads/{name}",
        }
        for name, sha in branches.items()
    ]
    converts = [ref for ref in refs if ref["ref"].startswith("refs/convert/")]
    return Answer(
        {"branches": [ref for ref in refs if ref not in converts], "converts": converts, "tags": []}
    )


@route("GET", f"/api/{KIND}/{ID}/commits/{REVISION}")
def list_commits(hub: Hub, request: Request) -> Answer:
    kind, id, _ = request.path
    return Answer(
        [
            {"id": commit.sha, "title": commit.title, "message": "", "authors": [], "date": DATE}
            for commit in reversed(find(hub, request, kind, id).commits)
        ]
    )


def entry(commit: Commit, path: str) -> dict:
    "One file as the Hub lists it."
    content = commit.files[path]
    listed = {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": git_sha1(content),
        "lastCommit": {"id": commit.sha, "title": commit.title, "date": DATE},
    }
    if is_large(path, len(content)):
        listed["lfs"] = {
            "oid": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "pointerSize": 130,
        }
    return listed


def folder(path: str) -> dict:
    return {"type": "directory", "path": path, "size": 0, "oid": git_sha1(path.encode())}


@route("GET", f"/api/{KIND}/{ID}/tree/{REVISION}(?:/(.*))?")
def list_tree(hub: Hub, request: Request) -> Answer:
    kind, id, revision, within = request.path
    commit = state(find(hub, request, kind, id), revision)
    start = f"{within.strip('/')}/" if within else ""
    deep = request.query.get("recursive", "").lower() in ("true", "1")
    listed: dict[str, dict] = {}
    for path in (path for path in commit.files if path.startswith(start)):
        parts = path[len(start) :].split("/")
        for depth in range(1, len(parts) if deep else min(2, len(parts))):
            inner = start + "/".join(parts[:depth])
            listed[inner] = folder(inner)
        if deep or len(parts) == 1:
            listed[path] = entry(commit, path)
    if within and not listed:
        raise Refusal(404, "EntryNotFound", f"{within} does not exist")
    return Answer(list(listed.values()))


@route("POST", f"/api/{KIND}/{ID}/paths-info/{REVISION}")
def describe_paths(hub: Hub, request: Request) -> Answer:
    kind, id, revision = request.path
    commit = state(find(hub, request, kind, id), revision)
    paths = [path.strip("/") for path in request.json()["paths"]]
    return Answer(
        [
            entry(commit, path) if path in commit.files else folder(path)
            for path in paths
            if path in commit.files or any(known.startswith(f"{path}/") for known in commit.files)
        ]
    )


# Files, whole or by range


@route("GET HEAD", f"/(?:(datasets)/)?{ID}/(?:resolve|raw)/{REVISION}/(.+)")
def send_file(hub: Hub, request: Request) -> Answer:
    prefix, id, revision, path = request.path
    repository = find(hub, request, "dataset" if prefix else "model", id)
    let_in(repository, request)
    commit = state(repository, revision)
    if path not in commit.files:
        raise Refusal(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit.sha})
    content = commit.files[path]
    large = is_large(path, len(content))
    etag = hashlib.sha256(content).hexdigest() if large else git_sha1(content)
    headers = {
        "ETag": f'"{etag}"',
        "X-Repo-Commit": commit.sha,
        "Accept-Ranges": "bytes",
        "X-Linked-Size": str(len(content)),
        "X-Linked-ETag": f'"{etag}"',
        "Content-Type": "application/octet-stream",
    }
    span = re.match(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    first, last = (
        (int(span[1]), int(span[2] or len(content) - 1)) if span else (0, len(content) - 1)
    )
    if span and first >= len(content):
        return Answer(b"", 416, {**headers, "Content-Range": f"bytes */{len(content)}"})
    last = min(last, len(content) - 1)
    half, cut_at = len(content) // 2, None
    if large and last >= half and repository.fault.status == 0 and repository.fault.strikes(path):
        cut_at = max(0, half - first)
    if span:
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Answer(content[first : last + 1], 206 if span else 200, headers, cut_at)


# Writing: create, ask how to upload, upload large files, commit


def address(request: Request, kind: str, id: str) -> str:
    return f"{request.url}/{'datasets/' if kind == 'dataset' else ''}{id}"


@route("POST", "/api/repos/create")
def create(hub: Hub, request: Request) -> Answer:
    need_token(request)
    asked = request.json()
    kind, id = asked.get("type") or "model", f"{asked.get('organization') or USER}/{asked['name']}"
    if (kind, id) in hub.repositories:
        return Answer(
            {"error": "You already created this repo", "url": address(request, kind, id)}, 409
        )
    hub.put(kind, id, {".gitattributes": b""}, title="initial commit")
    return Answer({"url": address(request, kind, id), "id": id, "name": id})


@route("POST", "/api/validate-yaml")
def validate_card(hub: Hub, request: Request) -> Answer:
    return Answer({"errors": [], "warnings": []})


@route("POST", f"/api/{KIND}/{ID}/preupload/{REVISION}")
def plan_upload(hub: Hub, request: Request) -> Answer:
    need_token(request)
    kind, id, revision = request.path
    commit = state(find(hub, request, kind, id), revision)
    modes = [
        {
            "path": file["path"],
            "uploadMode": "lfs" if is_large(file["path"], file["size"]) else "regular",
            "shouldIgnore": False,
            "oid": None,
        }
        for file in request.json()["files"]
    ]
    return Answer({"commitOid": commit.sha, "files": modes})


@route("POST", rf"/(?:datasets/)?{ID}\.git/info/lfs/objects/batch")
def plan_large_files(hub: Hub, request: Request) -> Answer:
    need_token(request)
    objects = [{"oid": file["oid"], "size": file["size"]} for file in request.json()["objects"]]
    for file in objects:
        if file["oid"] not in hub.large_files:
            file["actions"] = {
                "upload": {"href": f"{request.url}/large/{file['oid']}", "header": {}}
            }
    return Answer(
        {"transfer": "basic", "objects": objects},
        headers={"Content-Type": "application/vnd.git-lfs+json"},
    )


@route("PUT", "/large/([0-9a-f]{64})")
def take_large_file(hub: Hub, request: Request) -> Answer:
    (digest,) = request.path
    if hashlib.sha256(request.body).hexdigest() != digest:
        raise Refusal(400, "", "the content does not match its name")
    hub.large_files[digest] = request.body
    return Answer()


@route("POST", f"/api/{KIND}/{ID}/commit/{REVISION}")
def take_commit(hub: Hub, request: Request) -> Answer:
    need_token(request)
    kind, id, revision = request.path
    repository = find(hub, request, kind, id)
    with hub.lock:
        files, title = dict(state(repository, revision).files), ""
        for line in request.body.decode().splitlines():
            operation, value = (json.loads(line)[name] for name in ("key", "value"))
            if operation == "header":
                title = value.get("summary", "")
            elif operation == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation == "lfsFile":
                files[value["path"]] = hub.large_files[value["oid"]]
            elif operation == "deletedFile":
                files.pop(value["path"], None)
            elif operation == "deletedFolder":
                files = {
                    path: files[path]
                    for path in files
                    if not path.startswith(value["path"].rstrip("/") + "/")
                }
            else:
                raise Refusal(400, "", f"an operation this Hub does not know: {operation}")
        commit = repository.commit(files, title, revision)
    return Answer(
        {
            "success": True,
            "commitOid": commit.sha,
            "hookOutput": "",
            "commitUrl": f"{address(request, kind, id)}/commit/{commit.sha}",
        }
    )


# The server


def answer(
    hub: Hub, method: str, path: str, request: Callable[[tuple[str, ...]], Request]
) -> Answer:
    """What the Hub says to one request. Paths are matched as sent, since revisions may hold quoted
    slashes."""
    for allowed, pattern, handler in ROUTES:
        match = pattern.fullmatch(path) if allowed == method else None
        if match:
            groups = tuple(
                urllib.parse.unquote(group) if group is not None else None
                for group in match.groups()
            )
            try:
                return handler(hub, request(groups))
            except Refusal as refusal:
                return refusal.answer
    return Refusal(404, "", f"no such page: {method} {path}").answer


class Handler(BaseHTTPRequestHandler):
    "Reads a request off the wire, and writes the answer."

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *arguments: object) -> None:
        "Say nothing: the hub keeps its own log."

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def handle_any(self) -> None:
        address, body = urllib.parse.urlsplit(self.path), self.read_body()
        query = dict(urllib.parse.parse_qsl(address.query))
        url = f"http://{self.headers['Host']}"
        reply = answer(
            self.hub,
            self.command,
            address.path,
            lambda groups: Request(groups, query, self.headers, body, url),
        )
        self.hub.log.append((self.command, self.path, reply.status))
        self.send_response(reply.status)
        headers = {
            "Content-Type": "application/json",
            **reply.headers,
            "Content-Length": str(len(reply.content)),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.content[: reply.cut_at])
            self.close_connection = self.close_connection or reply.cut_at is not None

    do_GET = do_HEAD = do_POST = do_PUT = handle_any


class Server(ThreadingHTTPServer):
    "Takes the many connections that several clients open at a time."

    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serve() -> Iterator[tuple[Hub, str]]:
    "A hub and its address, for as long as the block runs."
    hub = Hub()
    server = Server(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def env(url: str, home: str | Path, token: str = "hf_dummy") -> dict[str, str]:
    "The environment of a process that takes `url` for the Hub; `token` may be empty."
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))
    }
    ours = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    return {**inherited, **ours, **({"HF_TOKEN": token} if token else {})}
