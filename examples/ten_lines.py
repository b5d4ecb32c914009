"""Ask a question over one file: `python examples/ten_lines.py book.txt "Who is the narrator?"`.

The client reads OPENAI_API_KEY and OPENAI_BASE_URL.
"""

import sys
from pathlib import Path

from openai import OpenAI

from rlm_mcp import RLMWrapper

path, question = sys.argv[1:]
rlm = RLMWrapper(OpenAI(), root_model="gpt-4.1", sub_model="gpt-4.1-mini")
response = rlm.generate(question, Path(path).read_text())
print(response.answer)
