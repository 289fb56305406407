"""Print what CHANGELOG.md says of one release: ``python .github/changes.py v1.2.3``."""

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def changes(version: str, text: str) -> str:
    """The section under the heading ``## VERSION - DATE``.

    Raises:
        SystemExit: There is no such heading, or nothing below it.
    """
    heading = rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d\n"
    found = re.search(heading + r"(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if not found or not found[1].strip():
        raise SystemExit(f"CHANGELOG.md has nothing under '## {version} - YYYY-MM-DD': see CONTRIBUTING.md, Release")
    return found[1].strip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(changes(sys.argv[1].removeprefix("v"), CHANGELOG.read_text(encoding="utf-8")))
