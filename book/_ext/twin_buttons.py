"""Buttons on notebook pages that open their twins, the notebooks that are read alone.

The theme's own buttons give the source of the page, whose boxes and references only the book
draws. The twins are published beside the pages: .github/workflows/publish.yml puts them there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLAB = "https://colab.research.google.com/github"
# Where the published book and its notebooks stand.
BRANCH, FOLDER = "gh-pages", "notebooks"


def address_of(repository: str, pagename: str) -> str:
    """Where Colab opens a page of the repository `owner/name`."""
    return f"{COLAB}/{repository}/blob/{BRANCH}/{FOLDER}/{Path(pagename).name}.ipynb"


def offer_twin(buttons: list[dict[str, Any]], source: str, twin: str) -> None:
    """Let whatever button downloads the source of a page download its twin."""
    for button in buttons:
        offer_twin(button.get("buttons", []), source, twin)
        if str(button.get("url", "")).endswith(source):
            button["url"] = twin


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
    name = Path(source).name
    # In the folder of the pages, one level up from each.
    offer_twin(context["header_buttons"], f"_sources/{pagename}.ipynb", f"../{FOLDER}/{name}")
    context["header_buttons"].insert(0, button)


def setup(app: Any) -> dict[str, bool]:
    # After the theme has made its own list of buttons.
    app.connect("html-page-context", add_button, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
