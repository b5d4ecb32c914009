"""Tasks whose answer has to be computed from all of the text."""

from __future__ import annotations

import random
from collections import Counter

from task import NAMES, TOWNS, WORDS, Task, day, filler, is_name, is_number, is_set, sentence


def column_sum(seed: int) -> Task:
    """The sum of a number that stands in every line."""
    random_ = random.Random(seed)
    amounts = [random_.randint(5, 400) for _ in range(900)]
    lines = [
        f"{day(random_)}; {random_.choice(TOWNS)}; {random_.choice(WORDS)}; {amount} EUR; paid"
        for amount in amounts
    ]
    question = (
        "Each line is a payment: date; town; subject; amount; state. What is the sum of all "
        "amounts in EUR? Answer with the number only."
    )
    return Task(question, "\n".join(lines), str(sum(amounts)), is_number(sum(amounts)))


def longest_line(seed: int) -> Task:
    """The entry that is longer than all others."""
    random_ = random.Random(seed)
    numbers = random_.sample(range(1000, 9999), 700)
    bodies = [sentence(random_, random_.randint(6, 24)) for _ in numbers]
    at = random_.randrange(len(numbers))
    bodies[at] = sentence(random_, 60)
    lines = [f"Entry {number}: {body}" for number, body in zip(numbers, bodies, strict=True)]
    question = (
        "Each line is an entry of a diary, such as 'Entry 1234: …'. Which entry is the longest "
        "line? Answer with the number of the entry only."
    )
    return Task(question, "\n".join(lines), str(numbers[at]), is_number(numbers[at]))


def latest_date(seed: int) -> Task:
    """The last of the dates on which somebody did something; lines are in no order."""
    random_ = random.Random(seed)
    names = random_.sample(NAMES, 6)
    rows = [(day(random_, random_.randint(1, 11)), random_.choice(names)) for _ in range(800)]
    gold = max(when for when, name in rows if name == names[0])
    lines = [f"{when} {name} visited {random_.choice(TOWNS)}" for when, name in rows]
    question = (
        f"Each line is a visit, in no order. What is the latest date on which {names[0]} visited a "
        "town? Answer with the date as it is written in the text."
    )
    return Task(question, "\n".join(lines), gold, is_set([gold], r"\d{4}-\d\d-\d\d"))


def most_frequent(seed: int) -> Task:
    """The name that stands in more lines than any other."""
    random_ = random.Random(seed)
    names = random_.sample(NAMES, 8)
    who = random_.choices(names, [30, 20, 18, 16, 15, 12, 10, 8], k=1400)
    lines = [f"user={name} action={random_.choice(WORDS)} ok" for name in who]
    gold = Counter(who).most_common(1)[0][0]
    question = (
        "Each line of the log names a user. Which user is in most lines? Answer with the name."
    )
    return Task(question, "\n".join(lines), gold, is_name(gold, NAMES))


def unique_values(seed: int) -> Task:
    """How many different addresses there are."""
    random_ = random.Random(seed)
    addresses = [f"10.{random_.randint(0, 9)}.{n}.{random_.randint(1, 250)}" for n in range(60)]
    chosen = random_.sample(addresses, random_.randint(35, 55))
    seen = chosen + random_.choices(chosen, k=1000)
    random_.shuffle(seen)
    lines = [f"{day(random_)} GET /{random_.choice(WORDS)} from {ip} 200" for ip in seen]
    question = (
        "The context is the log of a web server. From how many different IP addresses did requests "
        "come? Answer with the number only."
    )
    return Task(question, "\n".join(lines), str(len(chosen)), is_number(len(chosen)))


def csv_filter(seed: int) -> Task:
    """Rows of a table that fulfil two conditions."""
    random_ = random.Random(seed)
    rows = [
        (number, random_.choice(NAMES), random_.randint(18, 80), random_.choice(TOWNS[:6]))
        for number in range(1500)
    ]
    town = TOWNS[seed % 6]
    gold = sum(age > 40 and where == town for _, _, age, where in rows)
    lines = ["id,name,age,town", *(",".join(map(str, row)) for row in rows)]
    question = (
        f"The context is a CSV file with a header. How many people from {town} are older than 40? "
        "Answer with the number only."
    )
    return Task(question, "\n".join(lines), str(gold), is_number(gold))


def slowest(seed: int) -> Task:
    """The request that took longest."""
    random_ = random.Random(seed)
    requests = random_.sample(range(10_000, 99_999), 1000)
    times = random_.sample(range(1, 9000), 1000)
    lines = [
        f"{day(random_)} INFO request {request} finished in {took} ms"
        for request, took in zip(requests, times, strict=True)
    ]
    gold = requests[times.index(max(times))]
    question = "Which request took the most time? Answer with the number of the request only."
    return Task(question, "\n".join(lines), str(gold), is_number(gold))


def duplicate(seed: int) -> Task:
    """The number that is there twice."""
    random_ = random.Random(seed)
    numbers = random_.sample(range(100_000, 999_999), 900)
    gold = random_.choice(numbers)
    numbers.insert(random_.randrange(len(numbers)), gold)
    lines = [f"invoice {number} sent to {random_.choice(NAMES)}" for number in numbers]
    question = (
        "Each line is an invoice that was sent. Which invoice number is there twice? Answer with "
        "the number only."
    )
    return Task(question, "\n".join(lines), str(gold), is_number(gold))


def speaker(seed: int) -> Task:
    """How often somebody speaks in a play."""
    random_ = random.Random(seed)
    cast = random_.sample(NAMES, 5)
    who = random_.choices(cast, k=600)
    lines = [f"{name.upper()}: {sentence(random_, 12)}" for name in who]
    # Being spoken of is not speaking.
    lines = [line[:-1] + f", {random_.choice(cast)}." for line in lines]
    gold = who.count(cast[0])
    question = (
        f"The context is a play; each line begins with who speaks. How many lines does "
        f"{cast[0].upper()} speak? Answer with the number only."
    )
    return Task(question, "\n".join(lines), str(gold), is_number(gold))


def compare_docs(seed: int) -> Task:
    """What the first of two lists has and the second has not."""
    random_ = random.Random(seed)
    things = [f"{colour} {thing}" for colour in WORDS[:6] for thing in WORDS[8:14]]
    random_.shuffle(things)
    gold, both = things[:2], things[4:]
    made: list[str] = []
    for own, year in ((gold, 2024), (things[2:4], 2025)):
        items = [*own, *both]
        random_.shuffle(items)
        head = [f"Inventory of {year}", *filler(random_, 300)]
        made.append("\n".join([*head, *(f"- {item}" for item in items)]))
    question = (
        "The context is a list of two documents, the inventories of 2024 and 2025. Items stand in "
        "lines that begin with '- '. Which items are in the first inventory and not in the second?"
    )
    pattern = "|".join(sorted(things, key=len, reverse=True))
    return Task(question, made, ", ".join(gold), is_set(gold, f"(?i){pattern}"))
