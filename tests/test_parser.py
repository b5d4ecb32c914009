"""Replies as models write them, and what must be read in each."""

from __future__ import annotations

import random

import pytest

from rlm_mcp.engine.parsing.problems import ReplyProblem
from rlm_mcp.engine.parsing.python_source import free_names, parse_arguments
from rlm_mcp.engine.parsing.reply import CodeBlock, Directive, ParsedReply, parse_reply


def code(*blocks: str, prose: str = "") -> ParsedReply:
    return ParsedReply(blocks=tuple(CodeBlock(block) for block in blocks), prose=prose)


def text(answer: str, prose: str = "") -> ParsedReply:
    return ParsedReply(final=Directive("text", answer), prose=prose)


def variable(name: str, prose: str = "") -> ParsedReply:
    return ParsedReply(final=Directive("variable", name), prose=prose)


def nothing(problem: ReplyProblem, prose: str = "") -> ParsedReply:
    return ParsedReply(problem=problem, prose=prose)


P = "print(len(context))"

FENCES: dict[str, tuple[str, ParsedReply]] = {
    "repl": (f"```repl\n{P}\n```", code(P)),
    "python": (f"```python\n{P}\n```", code(P)),
    "py": (f"```py\n{P}\n```", code(P)),
    "Python": (f"```Python\n{P}\n```", code(P)),
    "python3": (f"```python3\n{P}\n```", code(P)),
    "python 3.11": (f"```python3.11\n{P}\n```", code(P)),
    "REPL in capitals": (f"```REPL\n{P}\n```", code(P)),
    "a tool_code fence": (f"```tool_code\n{P}\n```", code(P)),
    "a space before the language": (f"``` python\n{P}\n```", code(P)),
    "braces around the language": (f"```{{python}}\n{P}\n```", code(P)),
    "an attribute behind the language": (f'```python title="a.py"\n{P}\n```', code(P)),
    "code on the opening line": (f"```python {P}\nprint(2)\n```", code(f"{P}\nprint(2)")),
    "tildes": (f"~~~python\n{P}\n~~~", code(P)),
    "bare tildes": (f"~~~\n{P}\n~~~", code(P)),
    "a longer fence": (f"````python\n{P}\n````", code(P)),
    "a longer closing fence": (f"```python\n{P}\n````", code(P)),
    "a bare fence": (f"```\n{P}\n```", code(P)),
    "a bare fence with an echo": ("```\ncontext[:200]\n```", code("context[:200]")),
    "one line": (f"```python {P}```", code(P)),
    "one line without language": (f"```{P}```", code(P)),
    "indented": (f"  ```python\n  {P}\n  if 1:\n      pass\n  ```", code(f"{P}\nif 1:\n    pass")),
    "indented in a list": (f"1. ```python\n   {P}\n   ```", code(P)),
    "in a list, body at the margin": (
        "- ```python\nfor x in [1]:\n  print(x)\n```",
        code("for x in [1]:\n  print(x)"),
    ),
    "indented, with a string at the margin": (
        '  ```python\n  x = """\nend"""\n  print(x)\n  ```',
        code('x = """\nend"""\nprint(x)'),
    ),
    "quoted": (f"> ```python\n> {P}\n> ```", code(P)),
    "Windows line ends": (f"```python\r\n{P}\r\nx = 1\r\n```\r\n", code(f"{P}\nx = 1")),
    "old Mac line ends": (f"```python\r{P}\r```", code(P)),
    "a byte order mark": (f"\ufeff```python\n{P}\n```", code(P)),
    "unclosed": (f"```python\n{P}", code(P)),
    "unclosed, prose behind": (
        f"```python\n{P}\n\nThis shows the length.",
        code(P, prose="This shows the length."),
    ),
    "unclosed, final behind": (
        f"```python\n{P}\n\nThat is it, then.\nFINAL(42)",
        ParsedReply((CodeBlock(P),), Directive("text", "42"), "That is it, then."),
    ),
    "closed on the last line of code": (f"```python\n{P}```", code(P)),
    "a sentence behind the closing fence": (
        f"```python\n{P}\n``` Now we wait.",
        code(P, prose="Now we wait."),
    ),
    "a full stop behind the closing fence": (f"```python\n{P}\n```.", code(P, prose=".")),
    "opened behind prose": (
        f"Here is the code: ```python\n{P}\n```",
        code(P, prose="Here is the code:"),
    ),
    "prose around": (f"First.\n\n```repl\n{P}\n```\n\nThen.", code(P, prose="First.\n\nThen.")),
    "two blocks": (
        "```repl\na = 1\n```\nand\n```repl\nb = 2\n```",
        code("a = 1", "b = 2", prose="and"),
    ),
    "next block opened before the first was closed": (
        "```python\na = 1\n```python\nb = 2\n```",
        code("a = 1", "b = 2"),
    ),
    "a stray fence at the end": (f"```python\n{P}\n```\n```\n", code(P)),
    "a stray fence before the final": (
        f"```python\n{P}\n```\n```\nFINAL(The end)",
        ParsedReply((CodeBlock(P),), Directive("text", "The end")),
    ),
    "a stray fence at the start": (f"```\n```python\n{P}\n```", code(P)),
    "an interpreter session": (
        "```python\n>>> x = 1\n>>> if x:\n...     print(x)\n1\n```",
        code("x = 1\nif x:\n    print(x)"),
    ),
    "an end token let through": (f"```python\n{P}\n```<|im_end|>\n", code(P)),
    "an invented next turn": (
        f"```python\n{P}\n```<|im_end|>\n<|im_start|>user\nOutput:\n5<|im_end|>\n"
        "<|im_start|>assistant\nFINAL(5)",
        code(P),
    ),
    "a header let through": (
        f"<|start_header_id|>assistant<|end_header_id|>\n\n```python\n{P}\n```",
        code(P),
    ),
    "a fence in a string": (
        'Look.\n```python\np = """Answer as\n```json\n{"a": 1}\n```\n"""\nprint(p)\n```\nDone.',
        code('p = """Answer as\n```json\n{"a": 1}\n```\n"""\nprint(p)', prose="Look.\nDone."),
    ),
    "a fence of backticks in a block of tildes": (
        "~~~python\nx = 1\n```\ny = 2\n~~~",
        ParsedReply(
            (CodeBlock("x = 1\n```\ny = 2"),),
            syntax="SyntaxError: invalid syntax (line 2)\n    ```\n    ^",
        ),
    ),
    "a bare fence in a string": (
        "```python\np = '''\n```\n'''\n```",
        code("p = '''\n```\n'''"),
    ),
    "a fence in an f-string": (
        '```python\np = f"""{P}\n```\n"""\nprint(p)\n```',
        code('p = f"""{P}\n```\n"""\nprint(p)'),
    ),
    "a Python fence in a string": (
        '```python\np = """\n```python\nx\n```\n"""\n```\nok',
        code('p = """\n```python\nx\n```\n"""', prose="ok"),
    ),
    "a fence in a string on one line": (
        "```python\nparts = text.split('```')\n```",
        code("parts = text.split('```')"),
    ),
    "a fence in a comment": ("```python\n# ``` ends it\nx = 1\n```", code("# ``` ends it\nx = 1")),
    "reasoning tags in a string": (
        '```python\nx = re.sub("<think>.*?</think>", "", y)\nz = y.split("</think>")\n```',
        code('x = re.sub("<think>.*?</think>", "", y)\nz = y.split("</think>")'),
    ),
    "an unknown escape": ('```python\nx = "\\d"\n```', code('x = "\\d"')),
    "one language behind another": (
        f'```json\n{{"a": 1}}\n```\n```python\n{P}\n```',
        code(P, prose='```json\n{"a": 1}\n```'),
    ),
    "an unclosed block of another language": (
        f'```json\n{{"a": 1}}\n```python\n{P}\n```',
        code(P, prose='```json\n{"a": 1}'),
    ),
    "invented output behind the code": (
        f"```python\n{P}\n```\nOutput:\n```\n42 lines of text\n```",
        code(P, prose="Output:\n```\n42 lines of text\n```"),
    ),
}

NOT_CODE: dict[str, tuple[str, ParsedReply]] = {
    "json": ('```json\n{"a": 1}\n```', nothing("not_code", '```json\n{"a": 1}\n```')),
    "bash": ("```bash\nls\n```", nothing("not_code", "```bash\nls\n```")),
    "text": ("```text\nprint(1)\n```", nothing("not_code", "```text\nprint(1)\n```")),
    "a final in text, as an example": (
        "You answer so:\n```text\nFINAL(42)\n```",
        nothing("not_code", "You answer so:\n```text\nFINAL(42)\n```"),
    ),
    "markdown that holds Python": (
        "```markdown\n# Title\n```python\nprint(1)\n```\n```",
        nothing("not_code", "```markdown\n# Title\n```python\nprint(1)\n```\n```"),
    ),
    "a bare fence of words": ("```\nhello\n```", nothing("not_code", "```\nhello\n```")),
    "a bare fence of a number": ("```\n42\n```", nothing("not_code", "```\n42\n```")),
    "a bare fence of labels": (
        "```\nName: Alice\n```",
        nothing("not_code", "```\nName: Alice\n```"),
    ),
    "a bare fence of JSON": ('```\n{"a": 1}\n```', nothing("not_code", '```\n{"a": 1}\n```')),
    "comments alone": (
        "```python\n# now count\n```",
        nothing("not_code", "```python\n# now count\n```"),
    ),
    "an empty block": ("```python\n\n```", nothing("not_code", "```python\n\n```")),
    "inline code": ("Use ```x``` here.", nothing("no_code", "Use ```x``` here.")),
    "empty": ("", nothing("empty")),
    "white space": (" \n\t\n", nothing("empty")),
    "an end token alone": ("<|eot_id|>", nothing("empty")),
    "prose": ("The text is about whales.", nothing("no_code", "The text is about whales.")),
    "a promise": ("I will look at the text.", nothing("promise", "I will look at the text.")),
    "a promise with an apostrophe": (
        "Let’s go. I’ll start.",
        nothing("promise", "Let’s go. I’ll start."),
    ),
    "a number": ("42", nothing("no_code", "42")),
    "a word": ("Lisbon", nothing("no_code", "Lisbon")),
    "a label": ("Answer: 42", nothing("no_code", "Answer: 42")),
}

UNFENCED: dict[str, tuple[str, ParsedReply]] = {
    "code": ("x = len(context)\nprint(x)", code("x = len(context)\nprint(x)")),
    "code with a final": ("x = 3\nFINAL(x)", code("x = 3\nFINAL(x)")),
    "the language on the first line": (f"python\n{P}", code(P)),
    "code with a comment": (f"# FINAL(no)\n{P}", code(f"# FINAL(no)\n{P}")),
    "indented code": ("    x = 1\n    print(x)", code("x = 1\nprint(x)")),
    "a final inside a call": ("print(FINAL(42))", code("print(FINAL(42))")),
    "prose and code": (
        f"Here it is:\n{P}",
        nothing("no_code", f"Here it is:\n{P}"),
    ),
}

REASONING: dict[str, tuple[str, ParsedReply]] = {
    "code in it": ("<think>\n```python\nbad()\n```\n</think>\nWell.", nothing("no_code", "Well.")),
    "a final in it": ("<think>\nFINAL(1)\n</think>\nFINAL(2)", text("2")),
    "before code": (f"<think>Hm.</think>\n```repl\n{P}\n```", code(P)),
    "on the line of the code": (f"<think>Hm.</think>```repl\n{P}\n```", code(P)),
    "in the middle of a line": (f"Ok <think>a\nb</think>\n```repl\n{P}\n```", code(P, prose="Ok")),
    "thinking": (f"<thinking>\nHm.\n</thinking>\n```repl\n{P}\n```", code(P)),
    "reasoning": (f"<reasoning>\nHm.\n</reasoning>\n```repl\n{P}\n```", code(P)),
    "capitals": (f"<THINK>Hm.</THINK>\n```repl\n{P}\n```", code(P)),
    "nested": ("<think>a<think>FINAL(1)</think>\nFINAL(2)\n</think>\nFINAL(3)", text("3")),
    "only a closing tag": (f"Hm, ```python\nbad()\n```\n</think>\n\n```repl\n{P}\n```", code(P)),
    "only a closing tag, before a fence": (f"Hm.</think>```repl\n{P}\n```", code(P)),
    "a closing tag in a comment of the code": (
        f"```repl\n# strip </think> first\n{P}\n```",
        code(f"# strip </think> first\n{P}"),
    ),
    "unclosed": ("<think>\n```python\nbad()\n```", nothing("unclosed_reasoning")),
    "unclosed, after code": (
        f"```repl\n{P}\n```\n<think>\nFINAL(1)",
        ParsedReply((CodeBlock(P),), problem="unclosed_reasoning"),
    ),
    "empty": (f"<think>\n\n</think>\n\n```repl\n{P}\n```", code(P)),
    "twice": (f"<think>a</think>\n```repl\n{P}\n```\n<think>FINAL(1)</think>", code(P)),
    "harmony channels": (
        "<|channel|>analysis<|message|>FINAL(1)<|end|><|start|>assistant"
        "<|channel|>final<|message|>FINAL(2)<|return|>",
        text("2"),
    ),
    "alone": ("<think>Hm.</think>", nothing("empty")),
    "that speaks of its own tag": (
        f"<think>a <think> b, no end\n</think>\n```repl\n{P}\n```",
        code(P),
    ),
    "that closes another tag": (f"<think>Hm.</thinking>\n```repl\n{P}\n```", code(P)),
}

FINALS: dict[str, tuple[str, ParsedReply]] = {
    "a number": ("FINAL(42)", text("42")),
    "a sentence": ("FINAL(The answer is 42.)", text("The answer is 42.")),
    "a full stop behind": ("FINAL(42).", text("42")),
    "text behind": ("FINAL(42)\nThat was (mostly) easy.", text("42", "That was (mostly) easy.")),
    "text on the line behind": ("FINAL(42) as counted (twice)", text("42", "as counted (twice)")),
    "prose before": ("All counted.\nFINAL(42)", text("42", "All counted.")),
    "bold": ("**FINAL(42)**", text("42")),
    "a heading": ("# FINAL(42)", text("42")),
    "a quote": ("> FINAL(42)", text("42")),
    "a list item": ("- FINAL(42)", text("42")),
    "a numbered item": ("3. FINAL(42)", text("42")),
    "backticks": ("`FINAL(42)`", text("42")),
    "bold and backticks": ("**`FINAL(42)`**", text("42")),
    "indented": ("    FINAL(42)", text("42")),
    "Final": ("Final(42)", text("42")),
    "final": ("final(42)", text("42")),
    "FINAL_ANSWER": ("FINAL_ANSWER(42)", text("42")),
    "final_answer": ('final_answer("forty two")', text("forty two")),
    "a space before the parenthesis": ("FINAL (42)", text("42")),
    "double quotes": ('FINAL("forty two")', text("forty two")),
    "single quotes": ("FINAL('forty two')", text("forty two")),
    "escapes": (r'FINAL("a\n\"b\"")', text('a\n"b"')),
    "triple quotes": ('FINAL("""one\ntwo (2)\n""")', text("one\ntwo (2)\n")),
    "two literals": ('FINAL("a " "b")', text("a b")),
    "literals over lines": ('FINAL(\n    "a "\n    "b"\n)', text("a b")),
    "a keyword": ('FINAL(answer="x")', text("x")),
    "a parenthesis in quotes": ('FINAL("a) b")', text("a) b")),
    "quotes inside": ('FINAL(He said "a) b" and left)', text('He said "a) b" and left')),
    "an apostrophe": ("FINAL(It's done)", text("It's done")),
    "an apostrophe in single quotes": ("FINAL('It's done')", text("It's done")),
    "quotes at both ends that are two": ('FINAL("a" and "b")', text('"a" and "b"')),
    "an inch": ('FINAL(a 5" pipe)', text('a 5" pipe')),
    "nested": ("FINAL(f(x) = (a + b) * c)", text("f(x) = (a + b) * c")),
    "parameters": (
        "FINAL(c, id, args=(), kwds={})",
        text("c, id, args=(), kwds={}"),
    ),
    "parameters with an interval": (
        "FINAL(x, y=(), z=[0, 1)) as asked",
        text("x, y=(), z=[0, 1)", "as asked"),
    ),
    "a signature": (
        "FINAL(def f(a=(), b=1))\n\nIt is (so).",
        text("def f(a=(), b=1)", "It is (so)."),
    ),
    "a smile": ("FINAL(all good :))", text("all good :)")),
    "a sad face": ("FINAL(bad :( but ok)", text("bad :( but ok")),
    "a parenthesis that never closes": (
        "FINAL(it opens ( and stays so)\n\nMore.",
        text("it opens ( and stays so)", "More."),
    ),
    "a forgotten last parenthesis": ("FINAL(It is (42)", text("It is (42)")),
    "wide parentheses": ("FINAL（四十二（42））", text("四十二（42）")),
    "a wide closing parenthesis": ("FINAL(42）", text("42")),
    "curly quotes": ("FINAL(“forty two”)", text("forty two")),
    "a label": ("**Final answer:** FINAL(42)", text("42")),
    "bold name": ("**FINAL**(42)", text("42")),
    "a final in a final": ("FINAL(FINAL(42))", text("42")),
    "a variable in a final": ("FINAL(FINAL_VAR(x))", variable("x")),
    "one line in a fence": ("```FINAL(The end)```", text("The end")),
    "a plan": (
        "FINAL(I will first look at the text, then count.)",
        nothing("promise", "I will first look at the text, then count."),
    ),
    "what only begins like a plan": ("FINAL(I Will Survive)", text("I Will Survive")),
    "two arguments": ("FINAL('a', 'b')", text("'a', 'b'")),
    "list marks": (
        "FINAL(Steps: 1) first 2) then)",
        text("Steps: 1) first 2) then"),
    ),
    "list marks over lines": (
        "FINAL(Found:\n1) one\n2) two (b)\n)",
        text("Found:\n1) one\n2) two (b)"),
    ),
    "letters as list marks": ("FINAL(Either a) x or b) y)", text("Either a) x or b) y")),
    "a number before the end, a list behind": (
        "FINAL(The count is 42)\nI did: 1) look 2) count",
        text("The count is 42", "I did: 1) look 2) count"),
    ),
    "several lines": ("FINAL(one\n\ntwo\n- three)\n", text("one\n\ntwo\n- three")),
    "one parenthesis too many": ("FINAL(42))", text("42")),
    "a fenced block inside": (
        "FINAL(Run this:\n```python\nprint(1)\n```\nand be done.)",
        text("Run this:\n```python\nprint(1)\n```\nand be done."),
    ),
    "JSON": ('FINAL({"a": [1, 2]})', text('{"a": [1, 2]}')),
    "a list": ('FINAL(["a", "b"])', text('["a", "b"]')),
    "a first of two": ("FINAL(42)\nQuestion: Next?\nFINAL(7)", text("42", "Question: Next?")),
    "a placeholder, then the answer": ("FINAL(...)\nFINAL(42)", text("42", "FINAL(...)")),
    "in a sentence": (
        "I will use FINAL(answer) later.",
        nothing("promise", "I will use FINAL(answer) later."),
    ),
    "the subject of a sentence": (
        "FINAL(answer) will be called once it is known.",
        nothing("no_code", "FINAL(answer) will be called once it is known."),
    ),
    "spoken of in backticks": (
        "`FINAL(answer)` ends the work.",
        nothing("no_code", "`FINAL(answer)` ends the work."),
    ),
    "a word that begins alike": (
        "Final (draft): not yet.",
        nothing("no_code", "Final (draft): not yet."),
    ),
    "a plan before code": (
        f"I give it by FINAL_VAR(draft) at the end.\n```repl\n{P}\n```",
        code(P, prose="I give it by FINAL_VAR(draft) at the end."),
    ),
    "behind code": (
        f"```repl\n{P}\n```\nFINAL(42)",
        ParsedReply((CodeBlock(P),), Directive("text", "42")),
    ),
    "in code": ("```repl\nx = 1\nFINAL(x)\n```", code("x = 1\nFINAL(x)")),
    "in a string in code": ('```repl\nprint("FINAL(3)")\n```', code('print("FINAL(3)")')),
    "in a comment in code": ("```repl\nx = 1\n# FINAL(x)\n```", code("x = 1\n# FINAL(x)")),
    "alone in a fence": ("```repl\nFINAL(x)\n```", code("FINAL(x)")),
    "prose alone in a fence": ("```repl\nFINAL(There are 42.)\n```", text("There are 42.")),
    "prose alone in a bare fence": ("```\nFINAL(There are 42)\n```", text("There are 42")),
    "prose behind code in a fence": (
        "```repl\nx = 1\nFINAL(There are 42.)\n```",
        ParsedReply((CodeBlock("x = 1"),), Directive("text", "There are 42.")),
    ),
    "an f-string": ('FINAL(f"Total: {x}")', code('FINAL(f"Total: {x}")')),
    "a computation": ("FINAL(len(hits))", code("FINAL(len(hits))")),
    "a joined list": ('FINAL(", ".join(names))', code('FINAL(", ".join(names))')),
    "what only looks like a call": ("FINAL(sin(x) + c)", text("sin(x) + c")),
    "empty": ("FINAL()", nothing("empty_final")),
    "an empty string": ('FINAL("")', nothing("empty_final")),
    "unclosed": (
        "FINAL(The answer is",
        ParsedReply(final=Directive("text", "The answer is"), problem="unclosed_final"),
    ),
    "unclosed before code": (
        f"FINAL(see below\n```repl\n{P}\n```",
        code(P, prose="FINAL(see below"),
    ),
    "several lines of JSON": (
        'FINAL({\n  "a": "(",\n  "b": 2\n})',
        text('{\n  "a": "(",\n  "b": 2\n}'),
    ),
}

VARIABLES: dict[str, tuple[str, ParsedReply]] = {
    "a name": ("FINAL_VAR(result)", variable("result")),
    "single quotes": ("FINAL_VAR('result')", variable("result")),
    "double quotes": ('FINAL_VAR("result")', variable("result")),
    "spaces": ("FINAL_VAR( result )", variable("result")),
    "an item": ('FINAL_VAR(d["k"])', variable('d["k"]')),
    "a call": ("FINAL_VAR(str(total))", variable("str(total)")),
    "a keyword": ('FINAL_VAR(name="result")', variable("result")),
    "backticks inside": ("FINAL_VAR(`result`)", variable("result")),
    "bold": ("**FINAL_VAR(result)**", variable("result")),
    "another case": ("Final_Var('x')", variable("x")),
    "behind code": (
        f"```repl\n{P}\n```\nFINAL_VAR(x)",
        ParsedReply((CodeBlock(P),), Directive("variable", "x")),
    ),
    "a sentence in quotes": ('FINAL_VAR("It is forty two.")', text("It is forty two.")),
    "a number": ("FINAL_VAR(42)", text("42")),
    "words": ("FINAL_VAR(the result above)", nothing("bad_variable")),
    "two names": ("FINAL_VAR(a, b)", nothing("bad_variable")),
    "nothing": ("FINAL_VAR()", nothing("empty_final")),
    "unclosed": ("FINAL_VAR(result", variable("result")),
}

TOOL_CALLS: dict[str, tuple[str, ParsedReply]] = {
    "bare JSON": ('{"name": "python", "arguments": {"code": "print(1)"}}', code("print(1)")),
    "arguments as a string": (
        '{"name": "python", "arguments": "{\\"code\\": \\"print(1)\\"}"}',
        code("print(1)"),
    ),
    "a tag": (
        '<tool_call>\n{"name": "repl", "arguments": {"code": "x = 1\\nprint(x)"}}\n</tool_call>',
        code("x = 1\nprint(x)"),
    ),
    "a function object": (
        '{"type": "function", "function": {"name": "py", "arguments": {"code": "print(1)"}}}',
        code("print(1)"),
    ),
    "in a JSON fence": ('```json\n{"tool": "python", "code": "print(1)"}\n```', code("print(1)")),
    "an action": ('{"action": "python", "action_input": "print(1)"}', code("print(1)")),
    "code alone": ('{"code": "print(1)"}', code("print(1)")),
    "code beside a thought": (
        '```json\n{"thought": "count", "code": "print(1)"}\n```',
        code("print(1)"),
    ),
    "data with a code": (
        '{"code": "E11", "city": "Lisbon"}',
        nothing("no_code", '{"code": "E11", "city": "Lisbon"}'),
    ),
    "a real line end in the string": ('{"code": "x = 1\nprint(x)"}', code("x = 1\nprint(x)")),
    "two calls": (
        '[{"name": "py", "arguments": {"code": "a = 1"}},'
        ' {"name": "py", "arguments": {"code": "b = 2"}}]',
        code("a = 1", "b = 2"),
    ),
    "a code element": ("<code>\nprint(1)\n</code>", code("print(1)")),
    "a function element": (
        "<function=python>\n<parameter=code>\nprint(1)\n</parameter>\n</function>",
        code("print(1)"),
    ),
    "a python tag": ("<|python_tag|>print(1)", code("print(1)")),
    "a python tag before words": (
        "<|python_tag|>no code",
        nothing("tool_call", "<|python_tag|>no code"),
    ),
    "a parameter that is no code": (
        "<parameter=code>no code</parameter><function=repl>",
        nothing("tool_call", "<parameter=code>no code</parameter><function=repl>"),
    ),
    "FINAL as a tool": ('{"name": "FINAL", "arguments": {"answer": "42"}}', text("42")),
    "another tool": (
        '{"name": "llm_query", "arguments": {"prompt": "Who is it?"}}',
        nothing("tool_call", '{"name": "llm_query", "arguments": {"prompt": "Who is it?"}}'),
    ),
    "broken JSON": (
        '<tool_call>{"name": "python", "arg',
        nothing("tool_call", '<tool_call>{"name": "python", "arg'),
    ),
    "code and an unknown tool": (
        '{"name": "py", "arguments": {"code": "a = 1"}}\n{"name": "web", "arguments": {"q": "b"}}',
        nothing(
            "tool_call",
            '{"name": "py", "arguments": {"code": "a = 1"}}\n'
            '{"name": "web", "arguments": {"q": "b"}}',
        ),
    ),
}

OWN_FORMS: dict[str, tuple[str, ParsedReply]] = {
    "half open to the right": (
        "FINAL(O(n) time, range [0, 10))",
        text("O(n) time, range [0, 10)"),
    ),
    "half open, then a stop": ("FINAL(The range is [1, 5).)", text("The range is [1, 5).")),
    "half open to the left": ("FINAL((0, 10])", text("(0, 10]")),
    "half open in the French way": ("FINAL(x in ]0, 1))", text("x in ]0, 1)")),
    "two intervals": ("FINAL(f(x) on [0, 1) and (1, 2])", text("f(x) on [0, 1) and (1, 2]")),
    "LaTeX": (r"FINAL($\left[0, 1\right)$)", text(r"$\left[0, 1\right)$")),
    "a colon": ("FINAL: 42", text("42")),
    "a colon, in bold": ("**FINAL_VAR: total**", variable("total")),
    "a colon in words": ("**Final answer:** 42", text("42")),
    "a colon, and lines below": ("FINAL:\none\ntwo", text("one\ntwo")),
    "a box": ("Thus \\boxed{42}.", text("42", "Thus \\boxed{42}.")),
    "a box with words": (
        "\\boxed{\\text{Lisbon}}",
        text("Lisbon", "\\boxed{\\text{Lisbon}}"),
    ),
    "a tag": ("<answer>42</answer>", text("42", "<answer>42</answer>")),
    "JSON": ('{"answer": 42}', text("42", '{"answer": 42}')),
    "a keyword": ("FINAL(answer=42)", text("42")),
    "returned": ("```repl\nreturn FINAL(total)\n```", code("FINAL(total)")),
    "returned without a fence": ("return FINAL(total)", code("FINAL(total)")),
    "returned where something fails": (
        "```repl\ntry:\n    x = 1 / y\nexcept ZeroDivisionError:\n    return FINAL(0)\n```",
        code("try:\n    x = 1 / y\nexcept ZeroDivisionError:\n    FINAL(0)"),
    ),
    "returned in a case": (
        "```repl\nmatch x:\n    case 1:\n        return FINAL(x)\n```",
        code("match x:\n    case 1:\n        FINAL(x)"),
    ),
    "returned in a branch": (
        "```repl\nif x:\n    return FINAL(x)\nreturn\n```",
        code("if x:\n    FINAL(x)\npass"),
    ),
    "code with characters that nobody sees": (
        "```repl\n\ufeffn = 0\nif n:\n\u00a0\u00a0n += 1\nprint(n)\u200b\n```",
        code("n = 0\nif n:\n  n += 1\nprint(n)"),
    ),
    "a template": ("FINAL(<your answer>)", nothing("no_code", "FINAL(<your answer>)")),
    "a template in brackets": (
        "FINAL([insert answer here])",
        nothing("no_code", "FINAL([insert answer here])"),
    ),
    "a plan behind a colon": (
        "FINAL: I will look at the text",
        nothing("promise", "I will look at the text"),
    ),
}

LATE: dict[str, str] = {
    "at the end of a sentence": "I have counted all of them. FINAL(42)",
    "behind a label": "Output: FINAL(42)",
    "in a sentence that gives it": "So the answer is FINAL(42).",
    "behind a sign": "✅ FINAL(42)",
    "in quotation marks": '"FINAL(42)"',
    "in an element": "<p>FINAL(42)</p>",
    "alone in a block of text": "```text\nFINAL(42)\n```",
    "below a heading": "## Final Answer\n\n42",
    "below a line in bold": "**Final Answer**\n\n**42**",
    "set apart in a sentence": "The final answer is **42**.",
}

SPOKEN_OF = {
    "a plan": "Next, I will compute it and give FINAL(total).",
    "advice": "To finish, call FINAL(answer) or FINAL_VAR(name).",
    "a condition": "Once I have the count I can call FINAL(count).",
    "a denial": "I cannot give FINAL(42) yet.",
    "an example in a block": "You answer so:\n```text\nFINAL(42)\n```",
    "no answer yet": "The final answer is not known yet.",
}

WRAPPED: dict[str, str] = {
    "a box with braces of its own": r"\boxed{\frac{1}{2}}",
    "a box in a final": r"FINAL($\boxed{\frac{1}{2}}$)",
    "a box behind a label": r"**Final Answer:** \boxed{\frac{1}{2}}",
    "a tag in a final": r"FINAL(<answer>\frac{1}{2}</answer>)",
    "a tag with an attribute": r'<answer type="text">\frac{1}{2}</answer>',
    "a tag in brackets": r"[ANSWER]\frac{1}{2}[/ANSWER]",
    "an object with the reasons": r'{"reasoning": "By hand.", "answer": "\\frac{1}{2}"}',
    "an object behind words": 'So:\n```json\n{"final_answer": "\\\\frac{1}{2}"}\n```',
    "an object that is ready": r'{"content": "\\frac{1}{2}", "ready": true}',
    "a call of a tool": r'{"name": "finish", "arguments": {"answer": "\\frac{1}{2}", "sure": 1}}',
    "a call in elements": r"<function=FINAL><parameter=answer>\frac{1}{2}</parameter></function>",
}


@pytest.mark.parametrize("reply", LATE.values(), ids=LATE.keys())
def test_a_final_behind_words_is_heard(reply: str) -> None:
    final = parse_reply(reply).final
    assert final is not None
    assert final.value == "42"


@pytest.mark.parametrize("reply", SPOKEN_OF.values(), ids=SPOKEN_OF.keys())
def test_a_final_that_is_spoken_of_is_not_given(reply: str) -> None:
    assert parse_reply(reply).final is None


@pytest.mark.parametrize("reply", WRAPPED.values(), ids=WRAPPED.keys())
def test_an_answer_is_taken_out_of_what_is_around_it(reply: str) -> None:
    final = parse_reply(reply).final
    assert final is not None
    assert final.value == r"\frac{1}{2}"


def test_a_call_that_names_a_variable_gives_its_value() -> None:
    for call in (
        '{"name": "FINAL_VAR", "arguments": {"variable_name": "total"}}',
        "<function=FINAL_VAR>\n<parameter=name>\ntotal\n</parameter>\n</function>",
    ):
        assert parse_reply(call).final == Directive("variable", "total")


@pytest.mark.parametrize(
    "label", ["最终答案：", "Réponse finale : ", "**Respuesta final:** ", "Endgültige Antwort: "]
)
def test_an_answer_is_heard_in_other_languages(label: str) -> None:
    assert parse_reply(f"{label}42") == text("42")


@pytest.mark.parametrize(
    "word", ["{{answer}}", "$ANSWER", "<final answer goes here>", "YOUR_ANSWER_HERE", "TBD", "___"]
)
def test_a_template_is_no_answer_whatever_its_signs(word: str) -> None:
    assert parse_reply(f"FINAL({word})").final is None


def test_a_final_that_is_taken_back_gives_way_to_the_next() -> None:
    reply = "FINAL(41)\n\nWait, that is wrong.\n\nFINAL(42)"
    assert parse_reply(reply).final == Directive("text", "42")


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ("total", ("total",)),
        ("{total}", ("total",)),
        ('found["k"]', ("found",)),
        ("rows[0].name", ("rows",)),
        ("'total'", ()),
        ("forty two", ()),
        ("[1, 2]", ()),
    ],
)
def test_a_text_that_may_be_an_expression_names_what_it_reads(
    argument: str, names: tuple[str, ...]
) -> None:
    final = parse_reply(f"FINAL({argument})").final
    assert final is not None
    assert final.names == names


@pytest.mark.parametrize(
    "argument",
    ['"It is " + total', '"It is %d" % total', "[row.name for row in rows]"],
)
def test_text_that_is_put_together_is_code(argument: str) -> None:
    assert parse_reply(f"FINAL({argument})") == code(f"FINAL({argument})")


ENDS = {
    "escaped parentheses": r"^\d{3}\)\s\(\w+$",
    "an escaped parenthesis alone": r"the pattern \( only",
    "an address": "https://en.wikipedia.org/wiki/Lantern_(tower)",
    "letters as marks over lines": "Items:\n(a) first\n(b) second",
    "half open over lines": "Buckets:\n- [0, 10): 3\n- [10, 20): 4",
    "without end": "(-∞, 0] ∪ [1, ∞)",
    "dates": "[2020-01-01, 2021-01-01)",
    "a range and an interval": "range(0, 10) covers [0, 10)",
    "a block of Python": "```python\nx = f(1)\n```",
}


@pytest.mark.parametrize("answer", ENDS.values(), ids=ENDS.keys())
def test_an_answer_with_parentheses_of_its_own_arrives_whole(answer: str) -> None:
    assert parse_reply(f"FINAL({answer})").final == Directive("text", answer)


def test_an_end_that_may_be_another_is_asked_about() -> None:
    final = parse_reply("FINAL(| a |\n|---|\n| 1) | (2 |\n)").final
    assert final is not None
    assert not final.is_certain


REPAIRED = {
    "a magic": ("%%time\nx = 1", "\nx = 1"),
    "a statement that is measured": ("%time x = f()", "x = f()"),
    "escapes of HTML": ("if n &gt; 3:\n    print(n)", "if n > 3:\n    print(n)"),
    "escaped ends of lines": (r"x = 1\nprint(x)", "x = 1\nprint(x)"),
    "curly quotes": ("print(“hello”)", 'print("hello")'),
    "curly quotes in a string": ('print("say “hi”", ‘a’)', "print(\"say “hi”\", 'a')"),
    "wide signs": ("print（1，2）", "print(1,2)"),
    "a minus sign": ("x = 3 − 1", "x = 3 - 1"),
}


@pytest.mark.parametrize(("written", "meant"), REPAIRED.values(), ids=REPAIRED.keys())
def test_code_from_elsewhere_is_put_right_where_it_is_no_python(written: str, meant: str) -> None:
    assert parse_reply(f"```repl\n{written}\n```") == code(meant)


def test_what_is_left_out_of_code_is_told() -> None:
    (block,) = parse_reply("```python\n!pip install numpy\nprint(1)\n```").blocks
    assert block.code.startswith("print('Not run: !pip install numpy")
    assert block.code.endswith("\nprint(1)")


@pytest.mark.parametrize(
    "label", ["code", "jupyter", "python-repl", "Python code", "python copy", "python:main.py"]
)
def test_python_is_known_by_other_names(label: str) -> None:
    assert parse_reply(f"```{label}\n{P}\n```") == code(P)


@pytest.mark.parametrize(
    "reply",
    [
        f"[PYTHON]\n{P}\n[/PYTHON]",
        f"<|python_start|>{P}<|python_end|>",
        f"<execute_ipython>\n{P}\n</execute_ipython>",
        f'<code language="python">\n{P}\n</code>',
        f"````repl\n{P}\n```",
    ],
)
def test_code_is_found_between_marks_of_other_models(reply: str) -> None:
    assert [block.code for block in parse_reply(reply).blocks] == [P]


SHAPES = {
    f"{group}: {name}": shape
    for group, table in {
        "fence": FENCES,
        "no code": NOT_CODE,
        "no fence": UNFENCED,
        "reasoning": REASONING,
        "final": FINALS,
        "own form": OWN_FORMS,
        "variable": VARIABLES,
        "tool call": TOOL_CALLS,
    }.items()
    for name, shape in table.items()
}


@pytest.mark.parametrize(("reply", "expected"), SHAPES.values(), ids=SHAPES.keys())
def test_each_shape_of_reply_is_read_as_what_it_means(reply: str, expected: ParsedReply) -> None:
    assert parse_reply(reply) == expected


def test_a_block_that_does_not_parse_is_kept_with_message_line_and_caret() -> None:
    code_text = "x = 1\nfor in x:\n    pass"
    parsed = parse_reply(f"```python\n{code_text}\n```")
    assert parsed == ParsedReply(
        blocks=(CodeBlock(code_text),),
        syntax="SyntaxError: invalid syntax (line 2)\n    for in x:\n        ^",
    )


def test_the_first_syntax_error_is_told_and_other_blocks_are_kept() -> None:
    parsed = parse_reply("```py\na = 1\n```\n```py\nb = = 2\n```\n```py\nc = = = 3\n```")
    assert [block.code for block in parsed.blocks] == ["a = 1", "b = = 2", "c = = = 3"]
    assert parsed.syntax is not None
    assert "b = = 2" in parsed.syntax


def test_the_caret_stands_under_the_error_of_an_indented_line() -> None:
    parsed = parse_reply("```py\nif x:\n        y = = 2\n```")
    assert parsed.syntax is not None
    _, line, caret = parsed.syntax.split("\n")
    assert line[caret.index("^")] == "="


def test_a_bare_fence_of_broken_python_is_code_with_a_syntax_error() -> None:
    parsed = parse_reply("```\nimport re\nprint(1\n```")
    assert parsed.blocks == (CodeBlock("import re\nprint(1"),)
    assert parsed.syntax is not None


def test_a_string_left_open_does_not_swallow_the_next_block() -> None:
    reply = '```python\nx = """a\n```\nThen more.\n```python\ny = 2\n```'
    parsed = parse_reply(reply)
    assert [block.code for block in parsed.blocks] == ['x = """a', "y = 2"]
    assert parsed.prose == "Then more."


def test_an_unclosed_block_that_does_not_parse_says_so() -> None:
    parsed = parse_reply("```python\nx = (1,")
    assert (parsed.blocks, parsed.problem) == ((CodeBlock("x = (1,"),), "unclosed_fence")
    assert parsed.syntax is not None


CUT: dict[str, tuple[str, ParsedReply]] = {
    "in a block": (f"```python\n{P}\nx = con", nothing("unclosed_fence")),
    "in a second block": (
        f"```python\n{P}\n```\nand\n```python\nx = con",
        ParsedReply((CodeBlock(P),), prose="and", problem="unclosed_fence"),
    ),
    "in prose": ("I will first", nothing("cut", "I will first")),
    "in prose behind a block": (f"```python\n{P}\n```\nNow I", code(P, prose="Now I")),
    "in thinking": ("<think>\nHm, so", nothing("unclosed_reasoning")),
    "in a final": (
        "FINAL(The answer is that",
        ParsedReply(final=Directive("text", "The answer is that"), problem="unclosed_final"),
    ),
    "before a word": ("", nothing("cut")),
    "in code without a fence": (
        "x = len(con)\nprint(x)",
        nothing("cut", "x = len(con)\nprint(x)"),
    ),
}


@pytest.mark.parametrize(("reply", "expected"), CUT.values(), ids=CUT.keys())
def test_half_a_reply_is_not_taken_for_a_whole_one(reply: str, expected: ParsedReply) -> None:
    assert parse_reply(reply, was_cut=True) == expected


@pytest.mark.parametrize("was_cut", [False, True])
def test_every_beginning_of_every_shape_can_be_read(was_cut: bool) -> None:
    for reply, _ in SHAPES.values():
        for length in range(1, len(reply), 5):
            parsed = parse_reply(reply[:length], was_cut=was_cut)
            assert parsed.blocks or parsed.final or parsed.problem


HOSTILE = {
    "null bytes": "```python\nx = '\0'\n```",
    "lone surrogates": "```python\nx = '\ud800'\n```",
    "deep parentheses": "```python\n" + "(" * 5000 + "\n```",
    "deep signs": "```python\nx = " + "-" * 50_000 + "1\n```",
    "deep attributes": "```python\nx = a" + ".b" * 20_000 + "\n```",
    "more than a cell may hold": "```python\n" + "x = 1\n" * 80_000 + "```",
    "a huge integer": "```python\nx = " + "9" * 10_000 + "\n```",
}


@pytest.mark.parametrize("reply", HOSTILE.values(), ids=HOSTILE.keys())
def test_code_that_breaks_the_parser_is_a_syntax_error_and_no_crash(reply: str) -> None:
    parsed = parse_reply(reply)
    assert len(parsed.blocks) == 1
    assert parsed.syntax is not None
    assert parsed.syntax.startswith("SyntaxError")


REPEATED = {
    "finals left open": "FINAL(\n" * 3000 + "```python\nx\n```",
    "finals in a fence": "```python\n" + "FINAL(a b)\n" * 3000 + "```",
    "fences": "```\n" * 3000,
    "strings left open": "```python\n'''\n" * 1000,
    "thinking": "<think>\n" * 3000,
    "thinking and back": "<think>a</think>\n" * 3000,
    "parentheses": "FINAL(" + "(" * 30_000,
    "closing parentheses": "FINAL(" + "1) " * 10_000,
    "quotes": 'FINAL("' + "a) " * 10_000,
    "braces": "{" * 30_000,
    "backticks": "`" * 60_000,
    "one long line": "word " * 12_000 + "`",
    "one long line of marks": "- " * 30_000,
    "digits": "1" * 60_000,
    "blank lines": "a" + "\n" * 60_000 + "b",
    "closing tags": "</think>" * 5000,
    "lines of one space": " \n" * 30_000 + "x",
    "boxes left open": "\\boxed{" * 8000,
    "answers left open": "<answer>" * 7500,
}


@pytest.mark.parametrize("reply", REPEATED.values(), ids=REPEATED.keys())
def test_a_reply_that_repeats_itself_without_end_is_still_read(reply: str) -> None:
    parsed = parse_reply(reply)
    assert parsed.blocks or parsed.final or parsed.problem


FRAGMENTS = (
    *("```python\n", "```\n", "~~~\n", "````\n", "```json\n", "print(1)\n", "x = '''\n", "'''\n"),
    *(
        "FINAL(",
        "FINAL_VAR(x)\n",
        ")",
        "(",
        "\n",
        "\n\n",
        "I will do it. ",
        "<think>",
        "</think>\n",
    ),
    *(
        "**",
        "> ",
        "- ",
        "1. ",
        "`",
        '{"code": "print(1)"}',
        "{",
        '"',
        "'",
        "FINAL(42)\n",
        "    ",
        "\r\n",
    ),
    *(
        "<tool_call>",
        "<code>",
        "\\",
        "1) ",
        ":)",
        "（",
        "x",
        "x = 1\n",
        "python ",
        "...",
        "\0",
        "\ud800",
    ),
)


@pytest.mark.parametrize("seed", range(8))
def test_any_mix_of_fragments_is_read_as_something_that_can_be_acted_on(seed: int) -> None:
    pick = random.Random(seed)
    for _ in range(60):
        reply = "".join(pick.choices(FRAGMENTS, k=pick.randint(1, 50)))
        for was_cut in (False, True):
            parsed = parse_reply(reply, was_cut=was_cut)
            assert parsed.blocks or parsed.final or parsed.problem
            assert all(block.code.strip() for block in parsed.blocks)
            assert parsed.final is None or parsed.final.value.strip()
            assert parsed.syntax is None or parsed.blocks


def test_a_variable_of_a_comprehension_is_none_that_an_answer_needs() -> None:
    call = parse_arguments("[x + len(more) for x in found]")

    assert call is not None
    assert sorted(free_names(call.args[0])) == ["found", "more"]
