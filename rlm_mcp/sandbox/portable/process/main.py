"""The process around one instance: started for a REPL, or kept ready for the next one.

Started as `python -I -S -X pycache_prefix=FOLDER -c BOOT PACKAGE_ROOT JSON`, with nothing but a
socket and its standard input. Frames travel over the socket, as they do with the native wall. The
input says what must get in at any time: `i` and the number of an order interrupt that order, and
end a cell that was interrupted already; the end of the input ends the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from rlm_mcp.sandbox.portable.boot import ORDER_BYTES, Boot
from rlm_mcp.sandbox.portable.process.link import HostLink

if TYPE_CHECKING:
    from rlm_mcp.sandbox.portable.process.repl import GuestRepl

WINDOWS_SHARE_BYTES = 4


def main() -> None:
    """Load the module, leave everything else, serve one REPL."""
    boot = Boot(**json.loads(sys.argv[2]))
    link = HostLink(_socket(boot))
    sys.path.append(boot.library)
    try:
        from rlm_mcp.sandbox.portable.process import repl  # noqa: PLC0415  # wasmtime can be imported now

        served = repl.prepare(boot, link)
    except Exception as error:  # noqa: BLE001  # the outermost frame: the host is told
        link.fail(f"{type(error).__name__}: {error}")
    threading.stack_size(repl.THREAD_STACK_BYTES)
    threading.Thread(target=served.serve, daemon=True).start()
    _obey(served)


def _socket(boot: Boot) -> socket.socket:
    if boot.socket is not None:
        return socket.socket(fileno=boot.socket)
    length = int.from_bytes(_read(WINDOWS_SHARE_BYTES), "big")
    from_share = getattr(socket, "fromshare")  # noqa: B009  # on Windows alone; has not been run
    return from_share(_read(length))


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def _obey(served: GuestRepl) -> NoReturn:
    """Do what standard input says, until it ends."""
    with contextlib.suppress(OSError):
        while order := os.read(0, 1):
            if order == b"i":
                served.stop(int.from_bytes(_read(ORDER_BYTES), "big"))
    os._exit(0)
