"""What went wrong on the way to an endpoint, said without its secrets."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from rlm_mcp.engine.models.problems import NoChoicesError
from rlm_mcp.engine.models.refusals import Refused
from rlm_mcp.engine.models.retry import AttemptFailedError, Diagnosis
from rlm_mcp.errors import (
    ModelConnectionError,
    ModelReplyError,
    ModelRequestError,
    TooManyFilesError,
    lacks_descriptors,
)
from rlm_mcp.text import without_credentials

QUOTED_CHARS = 500
_FIX = "Set RLM_MCP_BASE_URL (or OPENAI_BASE_URL), and see that the server runs."
_PROXY_FIX = (
    "A proxy of the environment is between: correct HTTPS_PROXY or HTTP_PROXY, or name the "
    "endpoint's host in NO_PROXY."
)
_OF_PROXIES = ("ClientProxyConnectionError", "ClientHttpProxyError", "ProxyError")
_TRUST = (
    "Add the certificate, or its authority, to those that this system trusts; on Linux "
    "SSL_CERT_FILE may name a file of trusted certificates."
)


@dataclass(frozen=True)
class Faults:
    """Makes diagnoses of what went wrong on the way to an endpoint; no secret is in any of them.

    `secrets` are the key and the values of headers.
    """

    base_url: str
    secrets: Sequence[str]

    @property
    def _at(self) -> str:
        return f"the model endpoint at {without_credentials(self.base_url)!r}"

    def refused(self, answer: Refused, body: Mapping[str, Any]) -> Diagnosis:
        """There is an answer, and it is an error; `body` is what was sent."""
        asked = {"at": without_credentials(self.base_url), "model": str(body.get("model", ""))}
        return replace(answer, **asked).diagnose()

    def late(self) -> Diagnosis:
        """There was no answer in time."""
        return Diagnosis(
            ModelConnectionError(f"No answer in time from {self._at}.", fix=_FIX), "yes"
        )

    def gone(
        self, why: BaseException, *, was_there: bool = True, was_idle: bool = False
    ) -> Diagnosis:
        """There is no connection, or none any more; `was_idle` where nothing came over it."""
        if problem := _find_distrust(why):
            said = f"The certificate of {self._at} is not trusted: {problem}."
            return Diagnosis(ModelConnectionError(said, fix=_TRUST))
        fix = TooManyFilesError().fix if lacks_descriptors(why) else _FIX
        if type(why).__name__ in _OF_PROXIES:
            fix = _PROXY_FIX
        error = ModelConnectionError(f"No connection to {self._at}: {_said(why)}.", fix=fix)
        return Diagnosis(error, "yes" if was_there else "briefly", was_idle=was_idle)

    def odd(self, why: Exception, *, lasts: bool = False, fix: str = "") -> Diagnosis:
        """What came is not a completion; `lasts` where another attempt would hardly bring one."""
        error = ModelReplyError(f"From {self._at}: {_said(why)}", fix=fix)
        is_for_long = lasts or isinstance(why, NoChoicesError)
        return Diagnosis(error, "briefly" if is_for_long else "yes")

    def moved(self, to: str) -> Diagnosis:
        """The endpoint redirects to a place where the prompt is not sent."""
        place = without_credentials(to)
        error = ModelRequestError(
            f"The request was redirected to {place!r} and not sent there: {self._at} is another "
            "host, or redirects in circles.",
            fix=f"If {place!r} is the right one, set RLM_MCP_BASE_URL to it.",
        )
        return Diagnosis(error)

    def failed(self, diagnosis: Diagnosis, cause: BaseException | None) -> AttemptFailedError:
        """Make the error of one attempt, without any secret in it."""
        error = diagnosis.error
        told = f"{cause} {cause.__cause__}" if cause else ""
        hides = False
        for secret in filter(None, self.secrets):
            error.message = error.message.replace(secret, "***")
            # The library's own text may quote the key, so it is not shown below ours.
            hides = hides or secret in told
        error.args = (error.message,)
        error.__cause__ = None if hides else cause
        return AttemptFailedError(diagnosis)


def passwords_in(address: str) -> tuple[str, ...]:
    """Return what is secret of the name and password in an address, in each form it is sent in."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ()
    if parts.username is None:
        return ()
    name, password = parts.username, parts.password or ""
    pair = f"{unquote(name)}:{unquote(password)}".encode()
    secret = password or name  # a token may stand alone
    return (secret, unquote(secret), base64.b64encode(pair).decode())


def _said(why: BaseException) -> str:
    # Not the `repr`, which for some holds the address of a proxy with its password.
    text = (str(why) or type(why).__name__).replace(" ssl:default", "")  # aiohttp's own affair
    return text if len(text) <= QUOTED_CHARS else f"{text[:QUOTED_CHARS]}…"


def _find_distrust(why: BaseException | None) -> str:
    """Say what is wrong with a certificate, if that is what an error comes from."""
    for _ in range(10):  # a chain may have no end
        if why is None:
            break
        if problem := getattr(why, "verify_message", ""):  # of `ssl.SSLCertVerificationError`
            return str(problem)
        why = why.__cause__ or why.__context__
    return ""
