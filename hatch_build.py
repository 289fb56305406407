"""What an index of packages shows of README: no link that only the repository can follow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# Code, which stays as it is, or a link or picture whose target is no address and no heading of the same page.
_PARTS = re.compile(
    r"```.*?^```|`[^`\n]+`|(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?!\w+:|#)(?P<target>[^)\s]+)\)",
    re.DOTALL | re.MULTILINE,
)


def readme_for_index(text: str, repository: str, version: str) -> str:
    """README as it can be read anywhere.

    Args:
        text: Markdown with links relative to the root of the repository.
        repository: The address of the repository, laid out as on GitHub. "" where none is known: links become their
            text, and pictures go.
        version: Links of a release go to its tag, all others to the newest state.
    """
    state = f"v{version}" if re.fullmatch(r"\d+(\.\d+)*", version) else "HEAD"

    def elsewhere(part: re.Match[str]) -> str:
        if part["target"] is None:
            return part[0]
        if not repository:
            return "" if part["picture"] else part["text"]
        kind = "raw" if part["picture"] else "blob"
        return f"{part['picture']}[{part['text']}]({repository.rstrip('/')}/{kind}/{state}/{part['target']})"

    return _PARTS.sub(elsewhere, text)


class IndexReadme(MetadataHookInterface):
    """Gives the packages their README; the address is ``Repository`` of ``[project.urls]``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme``."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository", "")
        text = readme_for_index(text, repository, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
