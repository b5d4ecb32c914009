"""Tasks whose answer stands somewhere in the text."""

from __future__ import annotations

import json
import random

from task import (
    NAMES,
    TOWNS,
    WORDS,
    Task,
    filler,
    hide,
    holds,
    is_name,
    is_number,
    is_set,
    sentence,
)


def paraphrase(seed: int) -> Task:
    """A fact that is asked for in other words than it is told in."""
    random_ = random.Random(seed)
    name = random_.choice(NAMES)
    fact = f"The polar expedition of 1911 was led by Captain {name} Duarte, who kept a diary."
    question = "Who was the commander of the journey to the pole in 1911? Answer with the name."
    context = hide(random_, filler(random_, 120_000), fact)
    return Task(question, context, f"{name} Duarte", is_name(name, NAMES))


def two_hop(seed: int) -> Task:
    """A fact that only another fact leads to."""
    random_ = random.Random(seed)
    people, towns = random_.sample(NAMES, 4), random_.sample(TOWNS, 4)
    facts = [f"{person} lives in {town}." for person, town in zip(people, towns, strict=True)]
    facts.append(f"The old lighthouse was repaired by {people[0]}.")
    facts.append(f"The old windmill was repaired by {people[1]}.")
    question = (
        "In which town does the person who repaired the lighthouse live? Answer with the town."
    )
    context = hide(random_, filler(random_, 100_000), *facts)
    return Task(question, context, towns[0], is_name(towns[0], TOWNS))


def join_facts(seed: int) -> Task:
    """Two facts that are multiplied."""
    random_ = random.Random(seed)
    crates, price = random_.randint(11, 49), random_.randint(21, 89)
    facts = (
        f"Order 4417 was for {crates} crates of pears.",
        f"Order 4418 was for {crates + 3} crates of plums.",
        f"One crate of pears costs {price} euro.",
        f"One crate of plums costs {price + 4} euro.",
    )
    question = "How many euro does order 4417 cost in all? Answer with the number only."
    context = hide(random_, filler(random_, 100_000), *facts)
    return Task(question, context, str(crates * price), is_number(crates * price))


def extract_list(seed: int) -> Task:
    """All addresses in a text."""
    random_ = random.Random(seed)
    hosts = ("post.example", "mail.example", "desk.example")
    found = [f"{name.lower()}@{random_.choice(hosts)}" for name in random_.sample(NAMES, 6)]
    facts = [f"Please write to {address} about the {random_.choice(WORDS)}." for address in found]
    question = "Which email addresses are mentioned in the text? List all of them."
    context = hide(random_, filler(random_, 80_000), *facts)
    return Task(question, context, ", ".join(found), is_set(found, r"[\w.]+@[\w]+\.[a-z]+"))


def absence(seed: int) -> Task:
    """Whether something is mentioned; half of the seeds do not."""
    random_ = random.Random(seed)
    is_there = seed % 2 == 0
    fact = f"A crate of krypton lamps was left at the {random_.choice(WORDS)} gate."
    others = [f"A crate of {kind} lamps was left at the gate." for kind in ("neon", "argon")]
    context = hide(random_, filler(random_, 80_000), *others, *([fact] if is_there else []))
    gold = "yes" if is_there else "no"
    question = "Does the text mention krypton anywhere? Answer yes or no."
    return Task(question, context, gold, is_name(gold, ("yes", "no", "true", "false")))


def section_title(seed: int) -> Task:
    """The title of a section that is named by its number."""
    random_ = random.Random(seed)
    titles = [" ".join(random_.sample(WORDS, 3)).capitalize() for _ in range(14)]
    parts = [f"## {title}\n\n" + "\n".join(filler(random_, 5_000)) for title in titles]
    question = (
        "The text is written in Markdown; each section begins with a line '## ' and its title. "
        "What is the title of the 7th section? Answer with the title only."
    )
    return Task(question, "\n\n".join(parts), titles[6], holds(titles[6]))


def json_lines(seed: int) -> Task:
    """A field of one record of many."""
    random_ = random.Random(seed)
    records = [
        {"id": 1000 + number, "name": random_.choice(NAMES), "town": random_.choice(TOWNS)}
        for number in range(1500)
    ]
    wanted = random_.choice(records)
    question = (
        "The context is in JSON Lines, one object a line. In which town is the record with id "
        f"{wanted['id']}? Answer with the town."
    )
    context = "\n".join(json.dumps(record) for record in records)
    return Task(question, context, str(wanted["town"]), is_name(str(wanted["town"]), TOWNS))


def code_symbol(seed: int) -> Task:
    """Which of many files defines a function, and not only calls it."""
    random_ = random.Random(seed)
    verbs = ("open", "close", "read", "merge", "split", "send", "parse", "drop")
    names = [f"{verb}_{noun}" for verb in verbs for noun in random_.sample(WORDS[8:], 4)]
    random_.shuffle(names)
    files: list[str] = []
    for number in range(len(names) // 2):
        own = names[2 * number : 2 * number + 2]
        bodies = [
            f"def {name}(path, limit={random_.randint(1, 99)}):\n"
            f'    """{sentence(random_, 9)}"""\n    return {random_.choice(names)}(path)\n'
            for name in own
        ]
        files.append(f"# module_{number:02d}.py\nimport os\n\n" + "\n\n".join(bodies))
    at = random_.randrange(len(files))
    wanted = names[2 * at]
    question = (
        "The context is a list of Python files; each begins with a comment with its name. Which "
        f"file defines the function {wanted}? Answer with the file name."
    )
    pool = [f"module_{number:02d}.py" for number in range(len(files))]
    return Task(question, files, pool[at], is_name(pool[at], pool))


def ini_value(seed: int) -> Task:
    """A setting that stands in every section, of one section."""
    random_ = random.Random(seed)
    sections = [f"{word}-{number}" for number in range(40) for word in ("cache", "queue", "mail")]
    random_.shuffle(sections)
    values = random_.sample(range(100, 999), len(sections))
    wanted = random_.randrange(len(sections))
    parts = [
        f"[{section}]\nhost = 10.0.0.{random_.randint(1, 250)}\nmax_retries = {value}\n"
        f"comment = {sentence(random_, 8)}\n"
        for section, value in zip(sections, values, strict=True)
    ]
    question = (
        "The context is a configuration file with sections in brackets. What is the value of "
        f"max_retries in the section [{sections[wanted]}]? Answer with the number only."
    )
    return Task(question, "\n".join(parts), str(values[wanted]), is_number(values[wanted]))


def neighbour(seed: int) -> Task:
    """What stands in the line after another."""
    random_ = random.Random(seed)
    lines = [
        f"step {number}: {random_.choice(NAMES)} takes the {random_.choice(WORDS)}"
        for number in range(1200)
    ]
    at = random_.randint(100, 1100)
    lines[at] = f"step {at}: the fire bell rings"
    name = random_.choice(NAMES)
    lines[at + 1] = f"step {at + 1}: {name} opens the door"
    question = (
        "The context is a protocol, one step a line. Who acts in the step right after the fire "
        "bell rings? Answer with the name."
    )
    return Task(question, "\n".join(lines), name, is_name(name, NAMES))
