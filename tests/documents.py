"""The code blocks of the documents, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "CONTRIBUTING.md"]
DOCUMENTS += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        document: its path below the repository.
        line: where its fence is, from 1.
        language: what the fence says.
        not_run: why it can't be run in a test, as a comment before it says; "" if it can.
    """

    document: str
    line: int
    language: str
    code: str
    not_run: str

    @property
    def place(self) -> str:
        """The document and line, as compilers write them."""
        return f"{self.document}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a bash block, without variables set before it."""
        lines = self.code.replace("\\\n", " ").splitlines()
        found = [shlex.split(line, comments=True) for line in lines]
        return [_without_variables(words) for words in found if words]


def _without_variables(words: list[str]) -> list[str]:
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    return words


def blocks(document: str, *languages: str) -> list[Block]:
    """Return the blocks of a document in these languages, all if none is named."""
    text = (ROOT / document).read_text("utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        block = Block(document, line, match["language"], match["code"], match["reason"] or "")
        found += [block] if not languages or block.language in languages else []
    return found


def all_blocks(*languages: str) -> list[Block]:
    """Return the blocks of all documents in these languages."""
    return [block for document in DOCUMENTS for block in blocks(document, *languages)]
