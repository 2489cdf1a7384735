"""`make chart-docs`: writes the table of values in the chart's README from the comments in values.yaml.

Each value is told by the comment above it. `--check` writes nothing, and fails when the table would become another one.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).parent / "chatbot"
BEGIN, END = "<!-- values: made by `make chart-docs` -->\n", "<!-- end of values -->\n"


def leaves(node: yaml.Node | None, path: str = "") -> Iterator[tuple[str, int, yaml.Node]]:
    """Each value that is no map of further ones, with its path and the line of its key."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{path}.{key.value}" if path else key.value
            if isinstance(value, yaml.MappingNode) and value.value:
                yield from leaves(value, name)
            else:
                yield name, key.start_mark.line, value


def comment_above(lines: list[str], line: int) -> str:
    told: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        told.insert(0, lines[line].lstrip()[1:].strip())
    return " ".join(told)


def table(text: str) -> str:
    rows = ["| value | default | meaning |", "|---|---|---|"]
    lines = text.splitlines()
    for name, line, node in leaves(yaml.compose(text)):
        meaning = comment_above(lines, line)
        if not meaning:
            raise SystemExit(f"values.yaml, line {line + 1}: {name} has no comment")
        default = json.dumps(yaml.safe_load(yaml.serialize(node)))
        rows.append(f"| `{name}` | `{default}` | {meaning.replace('|', '&#124;')} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    readme = CHART / "README.md"
    before = readme.read_text(encoding="utf-8")
    head, rest = before.split(BEGIN)
    after = head + BEGIN + "\n" + table((CHART / "values.yaml").read_text(encoding="utf-8")) + "\n" + END
    after += rest.split(END)[1]
    if "--check" in sys.argv[1:]:
        if after != before:
            sys.stderr.write("charts/chatbot/README.md does not tell values.yaml as it is: run `make chart-docs`\n")
            return 1
        return 0
    readme.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
