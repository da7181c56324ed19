"""A Colab button on notebook pages, to the version that is read alone.

The theme's own button opens the source of the page, whose boxes and references Colab cannot draw.
The version read alone stands on a branch of its own: .github/workflows/colab.yml puts it there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLAB = "https://colab.research.google.com/github"
BRANCH = "colab"


def address_of(repository: str, pagename: str) -> str:
    """Where Colab opens a page of the repository `owner/name`."""
    return f"{COLAB}/{repository}/blob/{BRANCH}/{Path(pagename).name}.ipynb"


def add_button(
    app: Any,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: Any,
) -> None:
    known = pagename in app.env.found_docs
    source = str(app.env.doc2path(pagename)) if known else ""
    if not source.endswith(".ipynb") or "header_buttons" not in context:
        return
    address = str(app.config.html_theme_options["repository_url"])
    repository = address.removeprefix("https://github.com/")
    button = {
        "type": "link",
        "text": "Colab",
        "url": address_of(repository, pagename),
        "tooltip": "Open this notebook in Colab",
        "icon": "fas fa-play",
        "label": "colab-button",
    }
    context["header_buttons"].insert(0, button)


def setup(app: Any) -> dict[str, bool]:
    # After the theme has made its own list of buttons.
    app.connect("html-page-context", add_button, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
