"""Tasks made after everything was tuned, by shapes that people ask about; played once."""

from __future__ import annotations

import json
import random

from task import NAMES, TOWNS, WORDS, Task, day, filler, hide, is_name, is_number, is_set, sentence

_NOISE = (
    "The street kept me awake until three.",
    "You could hear every word from the next room.",
    "A drill started below our window at six in the morning.",
    "The band in the bar played until dawn, we did not sleep.",
    "Doors were slammed in the corridor all night.",
)
_STAY = (
    "Breakfast was generous and the coffee strong.",
    "The receptionist found us a taxi at once.",
    "Our towels were not changed for four days.",
    "The pool was closed although we had booked because of it.",
    "A lovely view of the bay from the balcony.",
    "The bed was too short for me.",
    "We were charged for a minibar that we never opened.",
    "The lift was out of order and we lived on the fifth floor.",
    "Wonderful garden, the children loved it.",
    "The shower was cold on two mornings.",
    "We shall certainly come back next summer.",
)
_INDOORS = (
    "Sort the invoices of March.",
    "Write the minutes of the meeting.",
    "Repair the printer in the office.",
    "Wash the curtains of the hall.",
    "Call the bank about the loan.",
    "Order new paper for the copier.",
    "Update the list of members.",
    "Bake two cakes for the party.",
    "Paint the ceiling of the kitchen.",
)
_OUTDOORS = "Rake the leaves from the lawn."
_TOPICS = ("glaciers", "beetles", "canals", "bridges", "comets", "vineyards", "clocks", "lemons")


def heavy_crates(seed: int) -> Task:
    """Rows of a table that fulfil two conditions, one of them a number with its unit."""
    random_ = random.Random(seed)
    rows = [
        (number, random_.choice(("whole", "broken", "lost")), random_.randint(2, 80))
        for number in range(1200)
    ]
    lines = [
        f"crate {number} | {random_.choice(TOWNS)} | {state} | {kilos} kg"
        for number, state, kilos in rows
    ]
    gold = sum(state == "broken" and kilos > 40 for _, state, kilos in rows)
    question = (
        "Each line is a crate in a store. How many crates are broken and weigh more than 40 kg? "
        "Answer with the number only."
    )
    return Task(question, "\n".join(lines), str(gold), is_number(gold))


def noisy_nights(seed: int) -> Task:
    """How many guests complain about one thing, in words of their own."""
    random_ = random.Random(seed)
    noise = random_.sample(_NOISE, random_.randint(3, 5))
    notes = [*noise, *_STAY]
    random_.shuffle(notes)
    question = (
        "Each line is what a guest of a hotel wrote. How many guests complain about noise? Answer "
        "with the number only."
    )
    return Task(question, "\n".join(notes), str(len(noise)), is_number(len(noise)))


def outdoors(seed: int) -> Task:
    """Which of a list of chores differs from the others by its meaning."""
    random_ = random.Random(seed)
    chores = list(_INDOORS)
    random_.shuffle(chores)
    at = random_.randrange(len(chores))
    chores.insert(at, _OUTDOORS)
    items = [f"Chore {number}: {text}" for number, text in enumerate(chores, 1)]
    question = (
        "The context is a list of chores. Which chore has to be done outdoors? Answer with the "
        "number of the chore only."
    )
    return Task(question, items, str(at + 1), is_number(at + 1))


def author(seed: int) -> Task:
    """Who wrote the document about a subject."""
    random_ = random.Random(seed)
    names = random_.sample(NAMES, len(_TOPICS))
    made = [
        f"Essay {number}\nAuthor: {name}\n" + "\n".join(filler(random_, 900)) + f"\nAll of "
        f"this concerns {topic}."
        for number, (name, topic) in enumerate(zip(names, _TOPICS, strict=True), 1)
    ]
    pairs = list(zip(made, names, _TOPICS, strict=True))
    random_.shuffle(pairs)
    at = random_.randrange(len(pairs))
    question = (
        "Each document is an essay; its second line names the author. Who is the author of the "
        f"essay about {pairs[at][2]}? Answer with the name."
    )
    return Task(
        question, [text for text, _, _ in pairs], pairs[at][1], is_name(pairs[at][1], NAMES)
    )


def opening_year(seed: int) -> Task:
    """A year that stands in one sentence of many."""
    random_ = random.Random(seed)
    year = random_.randint(1850, 1990)
    facts = (
        f"The bridge over the Orla was opened in {year} by the mayor.",
        f"The bridge over the Tavra was opened in {year + 7} without a ceremony.",
    )
    question = "In which year was the bridge over the Orla opened? Answer with the year only."
    context = hide(random_, filler(random_, 150_000), *facts)
    return Task(question, context, str(year), is_number(year))


def unpaid(seed: int) -> Task:
    """Records of JSON Lines that fulfil two conditions."""
    random_ = random.Random(seed)
    records = [
        {"bill": number, "paid": random_.random() < 0.7, "amount": random_.randint(10, 500)}
        for number in range(1300)
    ]
    gold = sum(not record["paid"] and record["amount"] > 200 for record in records)
    question = (
        "The context is in JSON Lines. How many bills are not paid and have an amount of more than "
        "200? Answer with the number only."
    )
    return Task(question, "\n".join(map(json.dumps, records)), str(gold), is_number(gold))


def warmest(seed: int) -> Task:
    """The day with the highest of all values."""
    random_ = random.Random(seed)
    tenths = random_.sample(range(-50, 400), 365)
    places = [f"2025-{1 + n // 31:02d}-{1 + n % 31:02d}" for n in range(365)]
    lines = [
        f"{when} temp={ten / 10} wind={random_.randint(0, 60)} {random_.choice(WORDS)}"
        for when, ten in zip(places, tenths, strict=True)
    ]
    gold = places[tenths.index(max(tenths))]
    question = (
        "Each line is the weather of a day. On which day was temp highest? Answer with the date as "
        "it is written in the text."
    )
    return Task(question, "\n".join(lines), gold, is_set([gold], r"\d{4}-\d\d-\d\d"))


def litres(seed: int) -> Task:
    """The sum of a number that stands in some of the lines."""
    random_ = random.Random(seed)
    amounts = [random_.randint(5, 90) for _ in range(300)]
    lines = [f"{day(random_)} bus {random_.randint(1, 40)} took {each} litres" for each in amounts]
    lines += [f"{day(random_)} bus {random_.randint(1, 40)} was washed" for _ in range(500)]
    random_.shuffle(lines)
    question = "How many litres did the buses take in all? Answer with the number only."
    return Task(question, "\n".join(lines), str(sum(amounts)), is_number(sum(amounts)))


def is_named(seed: int) -> Task:
    """Whether somebody is named anywhere; half of the seeds do not."""
    random_ = random.Random(seed)
    is_there = seed % 2 == 1
    facts = [f"A telegram came from {name} at noon." for name in ("Adele", "Bruno", "Celia")]
    facts += ["A telegram came from Ottokar at noon."] if is_there else []
    gold = "yes" if is_there else "no"
    question = "Did a telegram come from Ottokar? Answer yes or no."
    context = hide(random_, filler(random_, 90_000), *facts)
    return Task(question, context, gold, is_name(gold, ("yes", "no", "true", "false")))


def signatures(seed: int) -> Task:
    """How many documents end in a certain way."""
    random_ = random.Random(seed)
    signed = [random_.random() < 0.4 for _ in range(25)]
    made = [
        f"Contract {number}\n"
        + "\n".join(sentence(random_, 20) for _ in range(8))
        + ("\nSigned: yes" if is_signed else "\nSigned: no")
        for number, is_signed in enumerate(signed, 1)
    ]
    question = (
        "The context is a list of contracts. The last line of each says 'Signed: yes' or 'Signed: "
        "no'. How many contracts are signed? Answer with the number only."
    )
    return Task(question, made, str(sum(signed)), is_number(sum(signed)))
