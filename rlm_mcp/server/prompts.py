"""Prompts: what a model is told when a person picks one in a host."""

from __future__ import annotations

from typing import Annotated

from mcp.server.mcpserver.prompts import Prompt
from pydantic import Field

ASK_FILE = """\
Answer a question over a file, or over many, too long to read here, with the tools of the server \
rlm-mcp.

Path: {path}
Question: {question}

If the user's message contains more than this path and question, take both from the message as \
the user typed them.

1. rlm_context_add(path={path!r}) gives a handle. If the path is refused, the error says what is \
allowed: pass that on and stop.
2. If the question looks for a name, a number or a phrase, try \
rlm_context_search(handles=[handle], pattern=...) first, and read around the matches with \
rlm_context_read; both are free. If that settles it, answer.
3. Otherwise rlm_query(question=..., contexts=[handle]). The answering model sees nothing of this \
conversation: write all that matters into the question, and the form of the answer. While the \
status is `running`, make the call in `next`.
4. Before you repeat names, numbers and quotations of the answer, look them up with \
rlm_context_search. Then answer, and say where in the text it is, how sure you are, and what \
was not found.
"""

PLAYBOOK = """\
How to get good answers from rlm-mcp, which answers questions over texts far longer than your \
context window.

Which tool
- Find a phrase, count matches, see where something is: rlm_context_search, rlm_context_read. \
Immediate and free.
- Understand, compare, aggregate, judge over much text: rlm_query. Minutes, and model calls.
- Compute, with Python of your own over the text: rlm_exec(code=..., contexts=[handle]), then the \
same run_id for further cells. `context` is the text, llm_query(prompt) asks a model.

Asking
- Store a text once with rlm_context_add, better by `path` than by `text`; the handle stays valid. \
rlm_context_list shows what is stored.
- The question goes to a model that knows nothing of your conversation. Say what the text is, what \
counts, what does not, and what the answer should look like; answer_schema makes it JSON.
- Several independent questions over one text: one rlm_query each, all with wait_seconds=0. If one \
builds on the work of another: continue_run.
- Expensive or vague questions: set a budget such as {"max_tokens": 500000, "max_sub_calls": 100}. \
The best answer so far comes back as `exhausted`.

Waiting
- `next` in a result is the call to make now. rlm_run_wait with after_event returns what is new. \
A call that times out ends only the waiting: ask the same question again, or wait, and nothing is \
paid twice. rlm_run_cancel ends a run.

Trusting
- rlm_run_trace shows the code that ran and what the models were asked; rlm_run_variables what was \
found on the way. Look there when an answer surprises you, and search for what it quotes.
- An error names the next step in `fix`. rlm_status says whether the model can be reached.
"""


async def ask_file(
    path: Annotated[str, Field(description="File, directory or glob on the server's machine.")],
    question: Annotated[str, Field(description="The question.")],
) -> str:
    """Store a long file, or many, and answer a question over it."""
    # Hosts that split what is typed at white space pass its quotes on.
    return ASK_FILE.format(path=_unquoted(path), question=question)


def _unquoted(path: str) -> str:
    path = path.strip()
    is_quoted = len(path) > 1 and path[0] == path[-1] and path[0] in "'\""
    return path[1:-1] if is_quoted else path.lstrip("'\"")


async def playbook() -> str:
    """How to get good answers over long texts from these tools."""
    return PLAYBOOK


PROMPTS = (
    Prompt.from_function(ask_file, title="Ask a question over a long file"),
    Prompt.from_function(playbook, title="How to get good answers over long texts"),
)
