"""Families over messages whose kind only their meaning tells: totals, and pairs of users."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from task import FIRST, Score, Task, is_choice, is_number, is_set

# Words such as "order", "late", "price" or "thank" stand in several kinds, so none gives one away.
TEMPLATES = {
    "complaint": (
        "My {thing} came with a crack along the side, and nobody has written back.",
        "Three weeks for one {thing}? I have never been kept waiting so long.",
        "You sent the {thing} to the wrong house again, thank you very much.",
        "For that price the {thing} should not fall apart on the second day.",
    ),
    "question": (
        "Does the {thing} also come in {colour}?",
        "Could somebody say whether the {thing} fits on a shelf of forty centimetres?",
        "I wonder what the price of the {colour} {thing} is without the lid.",
        "Until when must one order the {thing} to have it before the holidays?",
    ),
    "praise": (
        "The {thing} is lovelier than in the pictures, the {colour} glows.",
        "Whoever packed my {thing} did it with so much care that I kept the box.",
        "Never late, never broken: the third {thing} from you, and I would take a fourth.",
        "My mother cried when she saw the {colour} {thing}; you made her day.",
    ),
    "purchase": (
        "Please put me down for two of the {colour} {thing}, same address as before.",
        "I will take the {thing} at the price you named; the money left my bank today.",
        "Send one {thing} to the office, and one to my home.",
        "Add a {colour} {thing} to the parcel that goes out on Friday.",
    ),
    "cancellation": (
        "I no longer need the {thing}; please do not send it.",
        "We found a {colour} {thing} in the attic, so take ours off the list, thank you.",
        "Stop the parcel with the {thing} if it is not too late.",
        "My order of the {thing} was a slip of the finger, let us forget it.",
    ),
    "greeting": (
        "Happy new year to all who make the {thing}, from the whole family.",
        "Just saying hello from the coast, where the {thing} stands in the sun.",
        "Good morning, no news from me, only a wave from behind the {colour} {thing}.",
        "Wishing you quiet holidays, with a {thing} on every table.",
    ),
}
LABELS = list(TEMPLATES)
MONTHS = [f"2025-{month:02d}" for month in range(1, 13)]
_SHOP = "lamp teapot mirror rug clock basket vase stool kettle blanket frame bowl"
_THINGS, _COLOURS = _SHOP.split(), ["blue", "green", "amber", "grey", "white", "crimson"]
_SHAPES = [
    (label, re.compile(re.escape(one).replace(r"\{thing\}", r"\w+").replace(r"\{colour\}", r"\w+")))
    for label, templates in TEMPLATES.items()
    for one in templates
]
_ABOUT = (
    "Each line is a message to a shop: number | day | user | text. By its meaning a message is of "
    f"one of these kinds: {', '.join(LABELS)}. (A purchase orders something, a cancellation takes "
    "an order back.) "
)


@dataclass(frozen=True)
class Record:
    """One message."""

    day: str
    user: str
    label: str
    text: str


def label_of(text: str) -> str:
    """Tell the kind of a message, as a model that understands it would."""
    return next(label for label, shape in _SHAPES if shape.search(text))


def aggregation(size: int, seed: int) -> Task:
    """A total over all messages; sizes and seeds take turns with six kinds of question."""
    kinds = (_most, _least, _count, _count_of_user, _best_month, _comparison)
    kind = kinds[(size + seed) % len(kinds)]
    for attempt in range(1_000):
        random_ = random.Random(f"aggregation {size} {seed} {attempt}")
        records = _records(random_, size, users=12)
        asked = kind(random_, records)
        if asked is not None:
            question, gold, score = asked
            text = _written(records)
            return Task("aggregation", size, seed, _ABOUT + question, text, gold, score)
    raise RuntimeError(f"no clear question for {kind.__name__} at 2^{size}")


def pairs(size: int, seed: int) -> Task:
    """All pairs of users who both wrote a message of one kind and none of another."""
    random_ = random.Random(f"pairs {size} {seed}")
    users = min(40, 10 + 3 * (size - 13))
    records = _records(random_, size, users=users, kinds_of_user=4)
    wanted, unwanted = random_.sample(LABELS, 2)
    having = {record.user for record in records if record.label == wanted}
    barred = {record.user for record in records if record.label == unwanted}
    gold = [f"({a}, {b})" for a, b in combinations(sorted(having - barred), 2)]
    question = (
        f"{_ABOUT}Take the users who wrote at least one {wanted} and not a single {unwanted}. List "
        "all pairs of them, one a line, as (first, second) with the two names in alphabetical "
        "order; `none` where there is no pair."
    )
    score = is_set(gold, r"\([a-z]+\d*, [a-z]+\d*\)")
    return Task("pairs", size, seed, question, _written(records), "\n".join(gold) or "none", score)


def _records(
    random_: random.Random, size: int, users: int, kinds_of_user: int = len(LABELS)
) -> Sequence[Record]:
    names = [f"{random_.choice(FIRST).lower()}{number}" for number in range(10, 10 + users)]
    kinds = {name: random_.sample(LABELS, kinds_of_user) for name in names}
    weights = {label: random_.uniform(0.5, 2) for label in LABELS}
    records: list[Record] = []
    left = 2**size
    while left > 0:
        user = random_.choice(names)
        among = kinds[user]
        label = random_.choices(among, [weights[one] for one in among])[0]
        text = random_.choice(TEMPLATES[label])
        filled = text.format(thing=random_.choice(_THINGS), colour=random_.choice(_COLOURS))
        day = f"{random_.choice(MONTHS)}-{random_.randint(1, 28):02d}"
        records.append(Record(day, user, label, filled))
        left -= len(filled) + len(user) + 27
    return records[:-1]


def _written(records: Sequence[Record]) -> str:
    return "\n".join(
        f"{number:06d} | {one.day} | {one.user} | {one.text}"
        for number, one in enumerate(records, 1)
    )


Asked = tuple[str, str, Score] | None


def _most(_: random.Random, records: Sequence[Record]) -> Asked:
    ranked = _counts(records, lambda one: one.label).most_common()
    question = "Of which kind are the most messages? Answer with the kind alone."
    return _clear(question, ranked[0], ranked[1], LABELS)


def _least(_: random.Random, records: Sequence[Record]) -> Asked:
    ranked = _counts(records, lambda one: one.label).most_common()[::-1]
    question = "Of which kind are the fewest messages? Answer with the kind alone."
    return _clear(question, ranked[0], ranked[1], LABELS)


def _count(random_: random.Random, records: Sequence[Record]) -> Asked:
    label = random_.choice(LABELS)
    gold = sum(one.label == label for one in records)
    return f"How many messages are of the kind {label}? {_NUMBER}", str(gold), is_number(gold)


def _count_of_user(random_: random.Random, records: Sequence[Record]) -> Asked:
    label, user = random_.choice(LABELS), random_.choice(records).user
    gold = sum(one.label == label and one.user == user for one in records)
    question = f"How many messages of the user {user} are of the kind {label}? {_NUMBER}"
    return question, str(gold), is_number(gold)


def _best_month(random_: random.Random, records: Sequence[Record]) -> Asked:
    label = random_.choice(LABELS)
    of_label = [one for one in records if one.label == label]
    ranked = _counts(of_label, lambda one: one.day[:7]).most_common()
    question = f"In which month are the most of the kind {label}? Answer as 2025-01."
    return _clear(question, ranked[0], ranked[1], MONTHS) if len(ranked) > 1 else None


def _comparison(random_: random.Random, records: Sequence[Record]) -> Asked:
    first, second = random_.sample(LABELS, 2)
    counted = _counts(records, lambda one: one.label)
    answers = ["fewer", "as many", "more"]
    order = (counted[first] > counted[second]) - (counted[first] < counted[second])
    question = (
        f"Are there more messages of the kind {first} than of the kind {second}, fewer, or as "
        "many? Answer with one of: more, fewer, as many."
    )
    return question, answers[order + 1], is_choice(answers[order + 1], answers)


_NUMBER = "Answer with the number alone."


def _counts(records: Sequence[Record], key: Callable[[Record], str]) -> Counter[str]:
    return Counter(key(one) for one in records)


def _clear(
    question: str, best: tuple[str, int], next_: tuple[str, int], choices: Sequence[str]
) -> Asked:
    if best[1] == next_[1]:
        return None
    return question, best[0], is_choice(best[0], choices)
