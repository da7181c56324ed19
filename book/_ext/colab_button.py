"""A Colab button on every notebook page, to the version in colab/ that is read alone.

The theme's own button opens the source of the page, whose boxes and references Colab cannot draw.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def add_button(
    app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    source = app.env.doc2path(pagename) if pagename in app.env.found_docs else ""
    if not str(source).endswith(".ipynb") or "header_buttons" not in context:
        return
    repository = str(app.config.html_theme_options["repository_url"]).removeprefix(
        "https://github.com/"
    )
    name = f"{Path(pagename).name}.ipynb"
    button = {
        "type": "link",
        "text": "Colab",
        "url": f"https://colab.research.google.com/github/{repository}/blob/main/colab/{name}",
        "tooltip": "Open this notebook in Colab",
        "icon": "fas fa-play",
        "label": "colab-button",
    }
    context["header_buttons"].insert(0, button)


def setup(app: Any) -> dict[str, bool]:
    # After the theme has made its own list of buttons.
    app.connect("html-page-context", add_button, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
