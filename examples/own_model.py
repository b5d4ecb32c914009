"""Use a model of your own: anything with one method, `complete`.

This one needs no network: it asks the REPL to count words, and gives what was counted. Run it with
`python examples/own_model.py book.txt whale`.
"""

import sys
from pathlib import Path

from rlm_mcp import ChatReply, ChatRequest, RLMWrapper


class WordCounter:
    """Writes the same code for every question."""

    def __init__(self, word: str) -> None:
        self.word = word

    async def complete(self, request: ChatRequest) -> ChatReply:
        code = f"```repl\nfound = context.lower().split().count({self.word.lower()!r})\n```"
        # A model that cannot answer raises a ModelError, and the run ends with it.
        return ChatReply(f"{code}\nFINAL_VAR(found)", input_tokens=len(request.messages))


path, word = sys.argv[1:]
response = RLMWrapper(WordCounter(word)).generate(f"How often is {word}?", Path(path).read_text())
print(response.answer)
