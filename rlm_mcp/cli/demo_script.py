"""The demo's text, and the scripted model that answers its question."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from rlm_mcp.testing.scripted_replies import ChatRequestView

PASSPHRASE = ("amber", "lantern", "orchard", "granite", "meadow")
QUESTION = (
    "Five entries of this log each give away one word of the Kestrel passphrase, and say which "
    "word it is (first to fifth). What is the passphrase, its words in order?"
)
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_PLACES = ("quay", "lock", "slipway", "north mole", "ferry stage", "dry dock", "signal mast")
_EVENTS = (
    "A barge with gravel made fast at the {place}; {count} tonnes were noted.",
    "The lamp at the {place} was cleaned and burned for {count} hours.",
    "Wind from the west, {count} knots at the {place}; two yachts turned back.",
    "A crew of {count} took the small crane at the {place} apart and found a worn bearing.",
    "The harbour master walked the {place} and counted {count} loose planks.",
    "Fog until noon. The horn at the {place} sounded {count} times.",
)


def demo_lines(lines: int = 60_000, seed: int = 7) -> Iterator[str]:
    """Yield a harbour's log, about 80 characters a line, with five facts planted across it."""
    chance = random.Random(seed)  # noqa: S311  # a reproducible text, no secret
    planted = {
        (2 * place + 1) * lines // (2 * len(_ORDINALS)): place for place in range(len(_ORDINALS))
    }
    order = chance.sample(range(len(_ORDINALS)), len(_ORDINALS))
    for number in range(lines):
        stamp = f"Day {number // 40 + 1:04}, entry {number % 40 + 1:02}: "
        if number in planted:
            place = order[planted[number]]
            yield (
                f"{stamp}A sailor said that the {_ORDINALS[place]} word of the Kestrel passphrase "
                f"is {PASSPHRASE[place]!r}.\n"
            )
        else:
            text = chance.choice(_EVENTS)
            yield stamp + text.format(place=chance.choice(_PLACES), count=chance.randint(2, 97))
            yield "\n"


_TURNS = (
    """I look at the size and find out where the passphrase is spoken of.

```repl
import re
print(len(context), context[:120])
places = [match.start() for match in re.finditer("Kestrel", context)]
print(len(places), "mentions")
```""",
    """Five mentions. I let the sub-model read each passage, all at once.

```repl
passages = [context[max(0, place - 150) : place + 150] for place in places]
question = "Which word of the Kestrel passphrase does this give, and which number is it? " \\
           "Reply as NUMBER WORD.\\n\\n"
replies = llm_query_batch([question + passage for passage in passages])
print(replies)
```""",
    """I put the words in order in code, and return the variable.

```repl
words = dict(reply.split() for reply in replies)
passphrase = " ".join(words[number] for number in sorted(words))
print(passphrase)
```
FINAL_VAR(passphrase)""",
)


def is_right(answer: str) -> bool:
    """Return whether an answer names the five words in order, whatever stands between them."""
    places = [answer.lower().find(word) for word in PASSPHRASE]
    return -1 not in places and places == sorted(places)


def scripted_reply(request: ChatRequestView) -> str:
    """Answer as a root model would, turn by turn, or as a sub-model that reads one passage."""
    found = re.search(r"the (\w+) word of the Kestrel passphrase is '(\w+)'", request.text)
    if request.text.startswith("Which word of the Kestrel passphrase") and found:
        return f"{_ORDINALS.index(found[1]) + 1} {found[2]}"
    turn = sum(message["role"] == "assistant" for message in request.messages)
    return _TURNS[min(turn, len(_TURNS) - 1)]
