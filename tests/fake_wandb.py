"""A server that answers as much as W&B's client needs, or fails in one of the ways in which servers do."""

import gzip
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Attributes:
    mode: "well", "500", "garbage", "silent" (accepts and never answers) or "busy".
    sent: the names of what was sent to it while it was well.
    """

    daemon_threads = True

    def __init__(self, mode: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode = mode
        self.sent: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *args: Any) -> None:
        pass  # who asked has gone away


@contextmanager
def serving(mode: str = "well") -> Iterator[Server]:
    with Server(mode) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        mode = self.server.mode
        if mode == "silent":
            time.sleep(3600)
        elif mode == "500":
            self._reply(500, b"oops")
        elif mode == "busy":
            self._reply(429, b"{}")
        elif mode == "garbage":
            self._reply(200, b"<html>please log in</html>")
        elif self.path == "/graphql":
            self._reply(200, json.dumps({"data": self._data(json.loads(content))}).encode())
        else:
            if self.path.endswith("/file_stream"):
                raw = gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content
                self.server.sent += json.loads(raw).get("files", {})
            self._reply(200, b"{}")

    do_GET = do_PUT = do_POST

    def _reply(self, code: int, content: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _data(self, request: dict[str, Any]) -> dict[str, Any]:
        query, given = request["query"], request.get("variables", {})
        if "UpsertBucket" in query:
            project = {"id": "p", "name": "kdexp", "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "b", "name": given.get("name"), "displayName": given.get("displayName"), "project": project}
            empty = {"description": None, "config": "{}", "sweepName": None, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket | empty, "inserted": True}}
        if "CreateRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.server.url}/upload"} for name in given["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if "RunResumeStatus" in query:
            return {"model": None}
        user = {"id": "u", "entity": "me", "username": "me", "flags": "{}", "email": "", "teams": {"edges": []}}
        return {"viewer": user, "serverInfo": {"features": [], "cliVersionInfo": {}, "latestLocalVersionInfo": None}}


if __name__ == "__main__":
    with serving(sys.argv[1]) as running:
        print(running.url, flush=True)
        while True:
            time.sleep(1)
