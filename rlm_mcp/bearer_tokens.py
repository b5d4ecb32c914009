"""Bearer tokens of the HTTP server, and who issues others; no error here quotes a token."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from pydantic import SecretStr

MIN_TOKEN_CHARS = 16
_CALLER_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
# What may stand in an Authorization header as it is (RFC 6750, section 2.1).
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")

_SAFE_URL = re.compile(r"https://.|http://([^/?#]*@)?(localhost|127\.0\.0\.1|\[::1\])[:/]")


def tokens_by_name(text: str) -> dict[str, str]:
    """Read `name=token,name=token`.

    Raises:
        ValueError: a part has no `=`, or a name is given twice.
    """
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("write it as name=token,name=token")
    names = [name.strip() for name, _, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("a name is given twice")
    return {name: token.strip() for name, (_, _, token) in zip(names, pairs, strict=True)}


def refuse_bad_tokens(by_name: Mapping[str, SecretStr], others: Collection[SecretStr]) -> None:
    """Refuse names that cannot be used, weak tokens, and one token of two users.

    Raises:
        ValueError: names what is wrong.
    """
    tokens = [*by_name.values(), *others]
    for name in by_name:
        if not _CALLER_NAME.fullmatch(name):
            raise ValueError("a name has 1 to 64 letters, digits, '-', '_' or '.'")
    for token in tokens:
        refuse_weak(token)
    if len({token.get_secret_value() for token in tokens}) < len(tokens):
        raise ValueError("two names have the same token")


def refuse_weak(token: SecretStr) -> None:
    """Refuse a token that can be guessed or cannot be sent.

    Raises:
        ValueError: names what is wrong.
    """
    text = token.get_secret_value()
    if len(text) < MIN_TOKEN_CHARS:
        raise ValueError(f"a token needs at least {MIN_TOKEN_CHARS} characters")
    if not _TOKEN.fullmatch(text):
        raise ValueError("a token may hold only letters, digits and -._~+/, with = at the end")


def refuse_bad_url(url: str, *, may_hold_password: bool) -> None:
    """Refuse a URL that others could listen to, or that holds a password where it may not.

    Raises:
        ValueError: names what is wrong.
    """
    if not _SAFE_URL.match(url):
        raise ValueError("it must begin with https://, or with http:// on this machine")
    if not may_hold_password and urlsplit(url).username is not None:
        raise ValueError("it must not contain a user name or password")
