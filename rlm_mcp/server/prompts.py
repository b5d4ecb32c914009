"""Prompts: what a model is told when a person picks one of them in a host."""

from __future__ import annotations

from typing import Annotated

from mcp.server.mcpserver.prompts import Prompt
from pydantic import Field

ASK_FILE = """\
Answer a question over a file, or over many, that is too long to read here, with the tools of the \
server rlm-mcp.

Path: {path}
Question: {question}

1. rlm_context_add(path={path!r}) gives a handle. If the path is refused, the error says what is \
allowed: pass that on and stop.
2. If the question looks for a name, a number or a phrase, try \
rlm_context_search(handles=[handle], pattern=...) first, and read around the matches with \
rlm_context_read; both are free. If that settles it, answer.
3. Otherwise rlm_query(question=..., contexts=[handle]). Who works on it sees nothing of this \
conversation: write all that matters into the question, with the form that the answer should have. \
While the status is `running`, make the call in `next`.
4. Look up names, numbers and quotations of the answer with rlm_context_search before you repeat \
them. Then answer, and say where in the text it is found, how sure that is, and what was not found.
"""

PLAYBOOK = """\
How to get good answers from rlm-mcp, which answers questions over texts far longer than your \
context window.

Which tool
- Find a phrase, count matches, see where something is: rlm_context_search, rlm_context_read. At \
once, and free.
- Understand, compare, aggregate, judge over much text: rlm_query. Minutes, and model calls.
- Compute, with Python of your own over the text: rlm_exec(code=..., contexts=[handle]), then the \
same run_id for further cells. `context` is the text, llm_query(prompt) asks a model.

Asking
- Store a text once with rlm_context_add, `path` before `text`; the handle serves for ever. \
rlm_context_list shows what there is.
- The question goes to a model that knows nothing of your conversation. Say what the text is, what \
counts, what does not, and what the answer should look like; answer_schema gets JSON.
- Several questions over the same text: one rlm_query each, side by side with wait_seconds=0, if \
they are independent; continue_run if one builds on the other's work.
- Dear or vague: set a budget such as {"max_usd": 1, "max_sub_calls": 100}. The best answer so far \
comes back as `exhausted`.

Waiting
- `next` in a result is the call to make now. rlm_run_wait with after_event tells what is new. A \
call that ends, or is cancelled, ends nothing: the run goes on until rlm_run_cancel.

Trusting
- rlm_run_trace shows the code that ran and what the models were asked; rlm_run_variables what was \
found on the way. Look there when an answer surprises you, and search for what it quotes.
- An error says what to do in `fix`. rlm_status tells whether the model can be reached.
"""


async def ask_file(
    path: Annotated[str, Field(description="File, directory or glob on the server's machine.")],
    question: Annotated[str, Field(description="What is to be found out.")],
) -> str:
    """Store a long file, or many, and answer a question over it."""
    return ASK_FILE.format(path=path, question=question)


async def playbook() -> str:
    """How to get good answers over long texts from these tools."""
    return PLAYBOOK


PROMPTS = (
    Prompt.from_function(ask_file, title="Ask a question over a long file"),
    Prompt.from_function(playbook, title="How to get good answers over long texts"),
)
