"""What mkdocs.yml adds to a page: links from docs/ to other files of the repository.

On a repository page they lead to the file. On the site they lead to REPOSITORY/FILE, if that
environment variable is set, and are the file's name otherwise. A link to no file is a warning,
which `mkdocs build --strict` refuses.
"""

import logging
import os
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")
_log = logging.getLogger("mkdocs.hooks.links")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replaces the links that leave docs/."""
    file = Path(page.file.abs_src_path)
    docs = Path(__file__).parent

    def replace(match: re.Match) -> str:
        text, target, anchor = match.groups()
        path = (file.parent / target).resolve()
        if path.is_relative_to(docs):
            return match[0]
        if not path.exists():
            _log.warning("%s: link to %s, which does not exist", page.file.src_path, target)
        root = os.environ.get("REPOSITORY", "").rstrip("/")
        address = f"{root}/{path.relative_to(docs.parent).as_posix()}{anchor or ''}"
        return f"[{text}]({address})" if root else f"`{text.strip('`')}`"

    return _LINK.sub(replace, markdown)
