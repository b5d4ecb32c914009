"""Tasks whose answer takes somebody who understands the text: sub-calls."""

from __future__ import annotations

import random

from task import Task, is_number

_SPORT = (
    "The striker scored twice and we won the cup after extra time.",
    "She beat her own record over 400 metres hurdles.",
    "Their goalkeeper was injured, so the substitute had to play.",
    "He served four aces in the last set and took the match.",
    "The peloton caught the breakaway two kilometres from the line.",
    "Our coach wants us to swim forty lengths before breakfast.",
    "The referee showed a red card in the tenth minute.",
)
_OTHER = (
    "Simmer the onions until they are golden, then add the stock.",
    "The parliament passed the budget late on Thursday night.",
    "A new bridge will carry trams across the harbour.",
    "The orchestra rehearsed the second movement all afternoon.",
    "Heavy rain is expected in the north until Sunday.",
    "Her novel tells of three sisters who run a bakery.",
    "The bank raised its interest rates by a quarter point.",
    "Scientists found a new species of frog in the valley.",
    "The landlord promised to mend the heating by Monday.",
    "Our train was late because a tree lay on the track.",
    "The museum shows drawings of the old town.",
)
_REFUND = "The kettle leaks, so please give me my money back."
_LETTERS = (
    "Could you tell me when the shop opens on Saturday?",
    "Thank you for the quick delivery, everything is fine.",
    "Please change my address to 12 Mill Lane.",
    "Do you have the blue jacket in a larger size?",
    "I would like to order two more of the same lamps.",
    "Which batteries does the radio need?",
    "My loyalty card is lost, can I have a new one?",
    "Is there a car park near your store?",
    "Please take me off the list for your newsletter.",
    "Can the sofa be delivered to the third floor?",
    "Your assistant was very kind to my mother.",
    "How do I clean the filter of the coffee machine?",
)


def topics(seed: int) -> Task:
    """How many of some notes are about a topic."""
    random_ = random.Random(seed)
    sport = random_.sample(_SPORT, random_.randint(5, 7))
    notes = [*sport, *random_.sample(_OTHER, 16 - len(sport))]
    random_.shuffle(notes)
    question = (
        "The context is a list of 16 short notes. How many of them are about sport? Judge each of "
        "them with llm_query. Answer with the number only."
    )
    return Task(question, notes, str(len(sport)), is_number(len(sport)))


def request(seed: int) -> Task:
    """Which letter wants something, in words that the question does not use."""
    random_ = random.Random(seed)
    letters = list(_LETTERS)
    random_.shuffle(letters)
    at = random_.randrange(len(letters))
    letters.insert(at, _REFUND)
    lines = [f"Letter {number}: {text}" for number, text in enumerate(letters, 1)]
    question = (
        "Each line is a letter from a customer. Which letter asks for a refund? Answer with the "
        "number of the letter only."
    )
    return Task(question, "\n".join(lines), str(at + 1), is_number(at + 1))
