"""What an error status of a provider means: by structure and status first, by words second."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlm_mcp.engine.models.problems import Problem
from rlm_mcp.engine.models.retry import Diagnosis
from rlm_mcp.engine.models.waits import told_in_headers
from rlm_mcp.errors import (
    ContextLengthError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelRateLimitError,
    ModelReplyError,
    ModelRequestError,
)

SYSTEM_ROLE = "system"
"""The name under which a model that takes no system message is remembered to refuse it."""

# Codes are compared by their letters alone: `ContextWindowExceeded`, `context_window_exceeded`.
_TOO_LONG_CODES = frozenset(
    [
        *("contextlengthexceeded", "exceedcontextsizeerror", "tokenslimitreached"),
        *("requesttoolarge", "modelmaxprompttokensexceeded", "stringabovemaxlength"),
        *("prompttoolong", "prompttoolarge", "contextwindowexceeded", "maxtokensexceeded"),
        *("inputtoolong", "invalidparameteroversizedtext", "contextlengthexceedederror"),
    ]
)
_TOO_LONG = re.compile(
    r"context.?(length|window|size)|exceeds? (the )?(available )?context|(prompt|input|request"
    r"|message|conversation)s? (is |are |was )?too (long|large)"
    r"|too many (input |prompt )?tokens(?! per)"
    r"|(input|prompt|maximum|total)\b.{0,40}\btokens?\b.{0,60}\bexceeds?"
    r"|exceeds?\b.{0,40}\b(maximum|max|limit)\b.{0,40}\btokens?"
    r"|tokens?\b.{0,40}\b(exceeds?|longer than|greater than|larger than|> )"
    r"|(maximum|max) (input|prompt|sequence|allowed)\b.{0,20}\blength|reduce the length"
    r"|(request|body|entity|payload|content)\b.{0,20} too large|too large for (the )?model"
    r"|\btokens?\b.{0,60}\bmust be (<|less|at most|under|below|no more)"
    r"|(prompt|input|context)\b.{0,30} (does not|doesn't) fit"
    r"|(prompt|input) tokens too long|context limit|range of input length|payload size exceeds"
    r"|(prompt|input|sequence|query)[ _]?length\b.{0,60}\b(exceed|longer|larger|greater)"
    r"|(prompt|input|messages?)\b.{0,20}\bexceeds?\b.{0,30}\blength"
    r"|(maximum|max) (supported|allowed)\b.{0,20}\b(sequence|prompt|input) length"
    r"|longer than the (maximum|max|model)|exceeds? (n_ctx|max_model_len|max_seq)|\bmaxLength\b"
    r"|must have (less|fewer|at most)\b.{0,20}\btokens?|\btoken count\b.{0,60}\b(supports|limit)"
    r"|\d tokens\b.{0,40}\b(limit|maximum|max|window|more than)\b|memory slot for batch"
    r"|(prompt|输入|提示|上下文|消息|内容|文本|长度|tokens?).{0,20}(超长|过长|超过|超出)|長すぎ",
    re.IGNORECASE,
)
_ASKED_OF_LIMIT = re.compile(
    r"limit:? *([\d,]+).*?requested:? *([\d,]+)", re.IGNORECASE | re.DOTALL
)
_NO_CREDIT_CODES = frozenset(
    [
        *("insufficientquota", "billinghardlimitreached", "insufficientbalance", "arrearage"),
        *("paymentrequired", "billingnotactive", "insufficientcredits", "insufficientfunds"),
        *("exceededcurrentquotaerror", "accountoverdueerror"),
    ]
)
_NO_CREDIT = re.compile(
    r"insufficient (balance|credits?|funds)|balance is (insufficient|too low)|out of credits?"
    r"|(check|update) your (plan and )?billing|overdue (balance|payment)|past invoices"
    r"|(have|has) any credits|used (all|up)\b.{0,20}\bcredits?|spending limit|余额不足|欠费",
    re.IGNORECASE,
)
# Where access is refused, a used up quota does not mean a wrong key.
_USED_UP = re.compile(
    r"\b(monthly|weekly|daily|usage|current|free)\b.{0,20}\b(quota|limits?|allowance)\b", re.I
)
_LOADING = re.compile(
    r"\bloading\b.{0,30}\bmodel|model\b.{0,60}\b(loading|starting|warming)|warming up"
    r"|(server|model|engine|worker|endpoint)\b.{0,60}\b(not (yet )?ready|is starting)"
    r"|not (yet )?loaded\b.{0,10}\byet|model\b.{0,40}\bnot yet (loaded|available)"
    r"|scal(ing|ed) (up|to zero|from zero)|cold.?start|\bmodel (was |is )?(un|re)loaded",
    re.IGNORECASE | re.DOTALL,
)
_NO_SYSTEM = re.compile(
    r"\b(system|developer)\b.{0,30}\b(roles?|messages?|prompts?|instructions?)\b.{0,60}"
    r"\b(not|n't|unsupported|only|invalid|must be)\b|roles? must alternate"
    r"|(unsupported|invalid|unknown|unexpected)\b.{0,30}\brole\b.{0,20}\b(system|developer)"
    r"|(not|n't|cannot) (support|accept|allow|take)\b.{0,30}\b(system|developer)\b"
    r"|only user\b.{0,15}\bassistant\b.{0,20}\broles?\b|roles? must be\b.{0,20}\buser\b"
    r"|\brole\b.{0,20}\b(system|developer)\b.{0,20}\b(not|n't|unsupported|invalid)\b"
    r"|(system|developer)\b.{0,3} is not (one of|allowed|valid|supported)"
    r"|(must|should|has to|needs to) (start|begin) with (a |the )?user\b"
    r"|first message (must|should|has to)\b.{0,20}\buser\b",
    re.IGNORECASE | re.DOTALL,
)
_NO_KEY_CODES = frozenset(["apikeyinvalid", "invalidapikey", "authenticationerror"])
_NO_KEY = re.compile(
    r"(incorrect|invalid|missing|expired|malformed) (or \w+ )?(api[ _-]?key|authorization)"
    r"|api[ _-]?key (is )?(not valid|not found|expired|invalid|missing)",
    re.IGNORECASE,
)
_RATE = re.compile(
    r"rate.?limit|too many requests|(requests?|tokens?) per (second|min|hour|day)|\b(qps|rpm|tpm)\b"
    r"|slow down|限流|频率",
    re.IGNORECASE,
)
_IS_REFUSAL = re.compile(
    r"\b(invalid|unsupported|unknown|unexpected|unrecognized|extra|not)\b|n't\b", re.IGNORECASE
)
# Other words for what chat completions call so.
_MAX_TOKENS = re.compile(r"max_?((output|new|completion)_?)?tokens", re.IGNORECASE)
_ALSO_CALLED = {
    "max_tokens": _MAX_TOKENS,
    "max_completion_tokens": _MAX_TOKENS,
    "reasoning_effort": re.compile(r"\b(thinking|reasoning)\b", re.IGNORECASE),
    "response_format": re.compile(
        r"response_?(json_?)?schema|json[ _]schema|structured outputs?|json mode|grammar"
        r"|guided (decoding|generation)",
        re.IGNORECASE,
    ),
    "stream_options": re.compile(r"include_usage"),
    "stream": re.compile(r"\bstreaming\b", re.IGNORECASE),
    "temperature": re.compile(r"\bsampling (parameters?|settings?)\b", re.IGNORECASE),
}
_PASSING_STATUSES = frozenset([408, 409, 420, 423, 424, 425, 499])
_CROWDED_STATUSES = frozenset([429, 498])
_NO_ENDPOINT = re.compile(r"(unexpected|unknown|no such|invalid) (endpoint|route|url|path)", re.I)
_CREDIT_FIX = (
    "Add credit at the provider, or set RLM_MCP_API_KEY, RLM_MCP_BASE_URL and "
    "RLM_MCP_ROOT_MODEL to a provider where there is some."
)
PATH_FIX = (
    "Check the names of the models and RLM_MCP_BASE_URL: most servers want it to end with /v1."
)


@dataclass(frozen=True)
class Refused:
    """An answer that is an error.

    Args:
        status: the HTTP status; below 400 where the error came in an answer that said it was fine.
        body: the error as decoded JSON, or text.
        headers: of the answer, names in lower case.
        sent: names of the optional parameters that were in the request, `SYSTEM_ROLE` among them
            where it had a system message.
        at: the endpoint's address, without a password.
        model: the model that was asked for.
    """

    status: int
    body: object
    headers: Mapping[str, str]
    sent: Sequence[str] = ()
    at: str = ""
    model: str = ""

    def diagnose(self) -> Diagnosis:
        """Say what it means."""
        problem = Problem.of(self.body)
        is_inside = self.status < 400
        status = (problem.status or _likely_status(problem)) if is_inside else self.status
        endpoint = f"endpoint at {self.at!r}" if self.at else "endpoint"
        how = "with an error" if is_inside else str(self.status)
        model = f" for the model {self.model!r}" if self.model else ""
        said = f"The model {endpoint} answered {how}{model}: {problem.message}"
        told = told_in_headers(self.headers)
        wait = problem.wait_seconds if told is None else told
        return _diagnose(_Case(status, said, problem, wait, self.sent, is_inside))


@dataclass(frozen=True)
class _Case:
    status: int
    said: str
    problem: Problem
    wait_seconds: float | None
    sent: Sequence[str]
    is_inside: bool


def _likely_status(problem: Problem) -> int:
    """Return the status that an error without any would have."""
    return 429 if _RATE.search(problem.message) else 502


def _diagnose(case: _Case) -> Diagnosis:
    """Go from what is certain to what is likely."""
    found = (rule(case) for rule in _RULES)
    return next((diagnosis for diagnosis in found if diagnosis is not None), _unknown(case))


def _no_credit(case: _Case) -> Diagnosis | None:
    problem = case.problem
    words = problem.bare_codes & _NO_CREDIT_CODES or _NO_CREDIT.search(problem.message)
    words = words or (case.status == 403 and _USED_UP.search(problem.message))
    if case.wait_seconds is not None or not (case.status == 402 or words):
        return None
    error = ModelRequestError if case.status == 402 else ModelRateLimitError
    return Diagnosis(error(case.said, fix=_CREDIT_FIX))


def _loading(case: _Case) -> Diagnosis | None:
    if case.status in {401, 403} or not _LOADING.search(case.problem.message):
        return None
    return _come_again(case, "The model is still being loaded: ask again later.")


def _too_long(case: _Case) -> Diagnosis | None:
    is_too_long = case.status != 429 and _is_too_long(case)
    if not is_too_long and not _is_too_large_for_limit(case.problem.message):
        return None
    refused = next((name for name in case.sent if _is_about_room(case.problem, name)), None)
    error = ContextLengthError(case.said, fix="Send a shorter prompt.")
    return Diagnosis(error, refused_parameter=refused)


def _rejected_key(case: _Case) -> Diagnosis | None:
    problem = case.problem
    is_told = bool(problem.bare_codes & _NO_KEY_CODES or _NO_KEY.search(problem.message))
    is_limit = case.status == 403 and not is_told and _RATE.search(problem.message)
    if is_limit or (case.status not in {401, 403} and not (case.status == 400 and is_told)):
        return None
    fix = "Set RLM_MCP_API_KEY (or OPENAI_API_KEY), or give the client a valid key."
    return Diagnosis(ModelAuthenticationError(case.said, fix=fix))


def _rate_limit(case: _Case) -> Diagnosis | None:
    is_limit = case.status == 403 and _RATE.search(case.problem.message)
    if case.status not in _CROWDED_STATUSES and not is_limit:
        return None
    fix = "Lower RLM_MCP_MAX_CONCURRENT_CALLS, or ask later."
    error = ModelRateLimitError(case.said, fix=fix)
    return Diagnosis(error, "patiently", case.wait_seconds, is_crowded=True)


def _refused_part(case: _Case) -> Diagnosis | None:
    name = _name_refused(case)
    return Diagnosis(ModelRequestError(case.said), refused_parameter=name) if name else None


def _passing(case: _Case) -> Diagnosis | None:
    status = case.status
    if status in {503, 529} and case.wait_seconds is not None:
        return _come_again(case, "Ask again later.", is_crowded=True)
    if status not in _PASSING_STATUSES and status < 500:
        return None
    error = ModelReplyError if case.is_inside else ModelConnectionError
    return Diagnosis(error(case.said, fix="Ask again later."), "yes", case.wait_seconds)


def _unknown(case: _Case) -> Diagnosis:
    status, problem = case.status, case.problem
    is_elsewhere = status in {404, 405} or bool(_NO_ENDPOINT.search(problem.message))
    unknown = ModelRequestError(case.said, fix=PATH_FIX if is_elsewhere else "")
    unknown.may_be_too_long = status in {400, 422} and not problem.parameter
    return Diagnosis(unknown, is_elsewhere=is_elsewhere)


_RULES = (_no_credit, _loading, _too_long, _rejected_key, _rate_limit, _refused_part, _passing)


def _come_again(case: _Case, fix: str, *, is_crowded: bool = False) -> Diagnosis:
    error = ModelConnectionError(case.said, fix=fix)
    return Diagnosis(error, "patiently", case.wait_seconds, is_crowded)


def _is_too_long(case: _Case) -> bool:
    if case.status == 413 or case.problem.bare_codes & _TOO_LONG_CODES:
        return True
    may_be = case.is_inside or case.status in {400, 404, 422, 500}
    return may_be and bool(_TOO_LONG.search(case.problem.message))


def _is_too_large_for_limit(message: str) -> bool:
    """Whether more was asked at once than is ever allowed: waiting does not help."""
    found = _ASKED_OF_LIMIT.search(message)
    if found is None:
        return False
    limit, requested = (int(number.replace(",", "") or 0) for number in found.groups())
    return requested > limit > 0


def _is_about_room(problem: Problem, name: str) -> bool:
    if problem.is_about(name) or re.search(rf"\b{name}\b", problem.message):
        return name != SYSTEM_ROLE
    # OpenAI counts the room kept for the reply: "3616 in the messages, 16384 in the completion".
    return name.startswith("max_") and "in the completion" in problem.message


def _name_refused(case: _Case) -> str | None:
    """Name what of the request is refused, so that it can be left out."""
    problem, message = case.problem, case.problem.message
    is_vague = case.status == 502 and case.is_inside and bool(_IS_REFUSAL.search(message))
    if case.status not in {400, 404, 405, 422, 500, 501} and not is_vague:
        return None
    is_about_role = problem.is_about("role") or bool(_NO_SYSTEM.search(message))
    if SYSTEM_ROLE in case.sent and is_about_role:
        return SYSTEM_ROLE
    names = [name for name in case.sent if name != SYSTEM_ROLE]
    by_field = (name for name in names if problem.is_about(name))
    by_word = (name for name in names if re.search(rf"\b{name}\b", message))
    # A grammar that cannot be made of a schema is an error of the server to some.
    others = names if case.status < 500 else [name for name in names if name == "response_format"]
    by_other = (name for name in others if _is_called(name, message))
    return next(by_field, None) or next(by_word, None) or next(by_other, None)


def _is_called(name: str, message: str) -> bool:
    """Whether a message speaks of a parameter in the provider's own words."""
    other = _ALSO_CALLED.get(name)
    return other is not None and bool(other.search(message))
