"""The four plain tasks that weak models and other engines were first measured with."""

from __future__ import annotations

import random
import re

from task import Check, Task, filler, sentence

_PROJECTS = ("Borealis", "Cobalt", "Dunmore", "Everest", "Falconet", "Gantry")
_GLAD = (
    "I love this blender, it crushes ice in seconds.",
    "Best headphones I have ever owned, superb sound.",
    "The staff went out of their way to help us, wonderful stay.",
    "Battery lasts two days, I am delighted.",
    "Beautiful fabric and perfect fit, will buy again.",
    "The soup was rich and comforting, we cleaned the bowl.",
    "Setup took one minute and it just works, fantastic.",
    "My kids play with it every day, great purchase.",
    "Delivered early and nicely packed, very happy.",
    "A gripping story that kept me up all night, brilliant.",
    "Crisp screen and quick as lightning, impressed.",
)
_CROSS = (
    "It broke after two days, total waste of money.",
    "The room smelled of smoke and nobody cared.",
    "Terrible customer service, I waited an hour on the phone.",
    "The zipper jammed the first time I used it.",
    "Food arrived cold and half the order was missing.",
    "It overheats and shuts down, very disappointing.",
    "The plot made no sense and I fell asleep.",
    "Stains would not come out, I regret buying it.",
    "Too noisy to use at night, sent it back.",
)


def needle(seed: int) -> Task:
    """One number in 200 kB of nothing."""
    random_ = random.Random(seed)
    lines = filler(random_, 200_000)
    gold = str(random_.randint(1_000_000, 9_999_999))
    lines.insert(int(len(lines) * 0.63), f"The magic number is {gold}.")
    question = "What is the magic number mentioned in the context? Answer with the number only."
    return Task(question, "\n".join(lines), gold, lambda answer: gold in answer)


def count(seed: int) -> Task:
    """Lines of a log that fulfil two conditions."""
    random_ = random.Random(seed)
    lines: list[str] = []
    gold = size = 0
    while size < 100_000:
        level = random_.choices(["INFO", "WARN", "ERROR", "DEBUG"], [6, 2, 1, 3])[0]
        took = random_.randint(1, 900)
        when, worker = random_.randint(1, 28), random_.randint(1, 9)
        lines.append(
            f"2026-03-{when:02d} {level} worker-{worker} handled request "
            f"{random_.randint(1000, 9999)} in {took} ms"
        )
        size += len(lines[-1]) + 1
        gold += level == "ERROR" and took > 500
    question = (
        "The context is a log file, one entry per line. How many lines have level ERROR and took "
        "more than 500 ms? Answer with the number only."
    )
    return Task(question, "\n".join(lines), str(gold), _holds_number(gold))


def docs(seed: int) -> Task:
    """Which of 30 documents mentions a name."""
    random_ = random.Random(seed)
    made: list[str] = []
    for number in range(1, 31):
        body = "\n".join(sentence(random_, 20) for _ in range(18))
        project = random_.choice(_PROJECTS)
        made.append(f"Report {number:02d}\n{body}\nThe team discussed project {project}.")
    at = random_.randint(5, 28)
    told = "Budget approval was granted to the Zephyr initiative by Dr. Okafor. The team discussed"
    made[at] = made[at].replace("The team discussed", told)
    gold = f"{at + 1:02d}"
    question = (
        "The context is a list of documents. Each document starts with its title, such as 'Report "
        "07'. Which document mentions the Zephyr initiative? Answer with the document title."
    )

    def check(answer: str) -> bool:
        return (gold in answer and "eport" in answer) or answer.strip() in (gold, str(at + 1))

    return Task(question, made, f"Report {gold}", check)


def classify(seed: int) -> Task:
    """Judge twenty reviews with sub-calls."""
    random_ = random.Random(seed)
    reviews = [*_GLAD, *_CROSS]
    random_.shuffle(reviews)
    question = (
        "The context has 20 customer reviews, one per line. Use llm_query to classify each review "
        "as positive or negative. How many reviews are positive? Answer with the number only."
    )
    return Task(question, "\n".join(reviews), str(len(_GLAD)), _holds_number(len(_GLAD)))


def _holds_number(gold: int) -> Check:
    return lambda answer: re.search(rf"(?<!\d){gold}(?!\d)", answer) is not None
