"""A fake of what E2B's SDK talks to: its API, and the code interpreter and files of one sandbox.

A program: its argument is a folder, which stands for the sandbox's `/tmp`. It prints its address,
then one line for each request. It tries our client; it has no walls.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
import time
import traceback
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

FOLDER = Path(sys.argv[1])
SANDBOX = {"templateID": "t", "sandboxID": "box1", "clientID": "c", "envdVersion": "0.4.0"}
NAMES: dict[str, Any] = {"__name__": "__main__"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""

    def do_POST(self) -> None:  # the base class's name
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not body and self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self.chunk, b""))
        note(f"POST {url.path}")
        if url.path.endswith("/sandboxes"):
            asked = json.loads(body)
            note(f"asked {json.dumps(asked, sort_keys=True)}")
            self.answer(201, SANDBOX)
        elif url.path == "/files":
            [path] = parse_qs(url.query)["path"]
            self.answer(200, [save(path, self.headers["Content-Type"], body)])
        else:
            self.execute(json.loads(body)["code"])

    def do_DELETE(self) -> None:  # likewise
        note(f"DELETE {self.path}")
        self.answer(204, None)

    def chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def answer(self, status: int, said: object) -> None:
        data = b"" if said is None else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def execute(self, code: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.redirect_stdout(Printed(self)):
            try:
                run(code.replace("/tmp/", f"{FOLDER}/"), self)  # of the sandbox
            except Exception as error:  # noqa: BLE001  # of the code that was sent
                shown = traceback.format_exc()
                self.say(type="error", name=type(error).__name__, value=str(error), traceback=shown)
        self.wfile.write(b"0\r\n\r\n")

    def say(self, **fields: object) -> None:
        data = json.dumps(fields).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


class Printed(io.TextIOBase):
    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def write(self, text: str) -> int:
        self._handler.say(type="stdout", text=text, timestamp=time.time_ns())
        return len(text)


def save(path: str, kind: str, body: bytes) -> dict[str, str]:
    """Keep a file that comes raw, or as the only part of a form."""
    if kind.startswith("multipart/"):
        form: Any = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
        body = form.get_payload()[0].get_payload(decode=True)
    name = Path(path).name
    (FOLDER / name).write_bytes(body)
    return {"name": name, "type": "file", "path": path}


def run(code: str, handler: Handler) -> None:
    """Run code as a notebook does: the value of the last expression is its result."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), NAMES)  # that is what it is for
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), NAMES)
        if value is not None:
            handler.say(type="result", text=repr(value), is_main_result=True)


def note(line: str) -> None:
    sys.__stdout__.write(f"{line}\n")  # pyright: ignore[reportOptionalMemberAccess]  # it has one
    sys.__stdout__.flush()  # pyright: ignore[reportOptionalMemberAccess]


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    note(f"http://127.0.0.1:{server.server_address[1]}")
    server.serve_forever()
