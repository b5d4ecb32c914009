"""What a question asks for, by its words, and hints for weak models that follow from it. Pure."""

from __future__ import annotations

import re

from rlm_mcp.engine.prompts.first_look import TextSample

YES_OR_NO = re.compile(r"\byes or no\b", re.IGNORECASE)

_COUNT = re.compile(r"\bhow (?:many|much|often)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\bhow many\b|\bwith (?:the|a|its) number\b|\bnumber only\b", re.IGNORECASE)
_NUMBER_ALONE = re.compile(
    r"\bnumber(?: of [^.?!]{1,40})? (?:only|alone)\b|\bonly the number\b", re.IGNORECASE
)
_BARE_NUMBER = re.compile(r"\W*\d[\d.,]*\W*\w{0,4}\W*")
_EXTREME = re.compile(
    r"\b(?:most|least|fewest|highest|lowest|longest|shortest|largest|smallest|biggest|greatest|"
    r"latest|earliest|oldest|newest|slowest|fastest|heaviest|lightest|maximum|minimum)\b",
    re.IGNORECASE,
)
_LEAST = re.compile(
    r"\b(?:least|fewest|lowest|shortest|smallest|earliest|oldest|fastest|lightest|minimum)\b",
    re.IGNORECASE,
)
# What has a form of its own, which the text seldom calls by its name.
_FORMS = (
    (r"e-?mails?|mail addresses", r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    (r"urls?|links?|web addresses|websites?", r"https?://[^\s)>\]]+"),
    (r"ips?|ip addresses", r"\b\d{1,3}(?:\.\d{1,3}){3}\b"),
    (r"dates?", r"\b\d{4}-\d\d-\d\d\b"),
    (r"phone numbers?|telephone numbers?", r"\+?\d[\d /-]{6,}\d"),
    (r"percentages?", r"\d+(?:\.\d+)?\s?%"),
)
_KEY = re.compile(r"([A-Za-z_]\w*)[\"']?\s*[=:]\s*[\"']?-?\d")
_UNIT = re.compile(r"\d[ ]?([A-Za-z%€$]+)(?=\W|$)")
_BESIDE = re.compile(r"([A-Za-z]+)[ :=#]+\d|\d ([A-Za-z]+)")
_ASKED = re.compile(r"[^.?!\s][^.?!]*\?")  # the sentences that ask
_MAX_SEARCHED_CHARS = 240
# More is not a short answer; and these patterns take the square of the length, or its cube.
_MAX_ANSWER_CHARS = 100
_MAX_QUESTION_CHARS = 2_000


def asks_for_number_in_text(question: str) -> bool:
    """Whether the answer is a number that the text has, and not a count."""
    return _NUMBER.search(question) is not None and not _COUNT.search(question)


def lacks_number(answer: str, question: str) -> bool:
    """Whether a number is asked for, or a number alone, and the answer is something else."""
    is_short = len(answer) <= _MAX_ANSWER_CHARS
    words = re.escape(answer.strip(" .\"'`"))
    if is_short and re.search(rf"\b(?:answer|reply|say|write)\W+{words}", question, re.IGNORECASE):
        return False  # "If the text does not say it, answer: unknown."
    if _NUMBER_ALONE.search(question):
        return not is_short or _BARE_NUMBER.fullmatch(answer) is None
    return _NUMBER.search(question) is not None and not any(map(str.isdigit, answer))


def asks_for_extreme(question: str) -> bool:
    """Whether all of the text has to be compared, for the most or least of something."""
    return _EXTREME.search(question) is not None


def find_by_form(question: str, *, is_list: bool = False) -> str:
    """Propose code for what the question asks for, where that has a form; empty where not."""
    for names, pattern in _FORMS:
        named = re.search(rf"\b(?:{names})\b", question, re.IGNORECASE)
        if named:
            text = '"\\n".join(context)' if is_list else "context"
            return (
                f"The text need not have the word {named[0]!r}. Find them by their form:\n"
                f'import re\nprint(sorted(set(re.findall(r"{pattern}", {text}))))'
            )
    return ""


def compare_all(question: str, sample: TextSample | None) -> str:
    """Say that all lines have to be compared, with code for it where lines have numbers."""
    said = "The question asks for one of all lines, and this shows a few of them. "
    word = _word_beside_number(question, sample) if sample and sample.lines else ""
    if not word:
        return f"{said}Go through all lines with code."
    best = "min" if _LEAST.search(question) else "max"
    return (
        f"{said}Compare the numbers of all lines with code:\n"
        f'print({best}(context.splitlines(), key=lambda line: number_near(line, "{word}")))'
    )


def tell_apart(question: str) -> str:
    """Propose a search for all words of the question, where one has shown the first of many."""
    asked = " ".join(_ASKED.findall(question[-_MAX_QUESTION_CHARS:])) or question
    words = re.sub(r"[\s\"\\]+", " ", asked)[:_MAX_SEARCHED_CHARS].strip(" ?.:")
    return f'These match by chance. More words tell them apart:\nsearch("{words}", k=3)'


def take_number(answer: str, question: str) -> str:
    """Propose code that takes the number that is asked for out of a line; empty where unclear."""
    if len(answer) > _MAX_SEARCHED_CHARS:
        return ""
    beside = [word for pair in _BESIDE.findall(answer) for word in pair if word]
    named = [word for word in beside if _is_named(word, question)]
    if not named:
        return ""
    return f"FINAL(number_near({answer!r}, {named[0]!r}))"


def _is_named(word: str, question: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", question, re.IGNORECASE) is not None


def _word_beside_number(question: str, sample: TextSample) -> str:
    """Choose the word that stands beside a number in all lines; one of the question before all."""
    beside = [[*_UNIT.findall(line), *_KEY.findall(line)] for line in sample.picked]
    common = [word for word in beside[0] if all(word in words for words in beside)]
    named = [word for word in common if _is_named(word, question)]
    return (named or common or [""])[-1]
