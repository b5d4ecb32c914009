"""The page for the owner of this machine: on loopback only, with its own token.

Other users of the machine reach a loopback port too, so there is always a token. It is random and
lives as long as the process. Who may read the owner's files gets it from a file that leads to the
page; no result, log, trace or list of processes shows it.
"""

from __future__ import annotations

import html
import secrets
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import SecretStr

from rlm_mcp.settings import Settings
from rlm_mcp.store.database import PAGE_PREFIX
from rlm_mcp.store.runs.owners import is_surely_dead, owner_id

_TOKEN_BYTES = 32
_OWNER = "owner"


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def address_with(url: str, token: str, run_id: str = "") -> str:
    """Return an address that opens the page; browsers send no fragment, and no server logs it."""
    place = f"/run/{run_id}&" if run_id else ""
    return f"{url}/#{place}token={token}"


def guarded(settings: Settings, token: str) -> Settings:
    """The same settings with one token alone, whose user is the owner of this machine."""
    oauth = dict.fromkeys(("oauth_issuer", "oauth_resource", "oauth_jwks_url"))
    changes = {"http_token": SecretStr(token), "http_tokens": dict[str, SecretStr](), **oauth}
    return settings.model_copy(update=changes)


def _remove_left_over(directory: Path) -> None:
    """Remove the files of processes that were killed, and could not do it themselves."""
    for owner in directory.glob(f"{PAGE_PREFIX}*/{_OWNER}"):
        with suppress(OSError):  # another process may remove its own at this moment
            if is_surely_dead(owner.read_text(encoding="utf-8")):
                shutil.rmtree(owner.parent, ignore_errors=True)


@contextmanager
def redirect_file(address: str, directory: Path) -> Generator[Path]:
    """A page that only this user can read and that leads to an address; gone with the block.

    A browser is started with its path, so that no list of processes shows the address's token. On
    Windows, where files have no mode, the directory's access list keeps others out.
    """
    target = html.escape(address, quote=True)
    _remove_left_over(directory)
    with tempfile.TemporaryDirectory(prefix=PAGE_PREFIX, dir=directory) as private:
        (Path(private) / _OWNER).write_text(owner_id(), encoding="utf-8")
        path = Path(private) / "open.html"
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(
            '<!doctype html><meta charset="utf-8"><title>rlm-mcp</title>'
            f'<meta http-equiv="refresh" content="0; url={target}">'
            f'<a href="{target}">Open the page</a>',
            encoding="utf-8",
        )
        yield path
