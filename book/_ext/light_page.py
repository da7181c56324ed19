"""A page loads what it uses: nothing twice, nothing for buttons that it does not have."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

# Live code through a server abroad: the book has no such button.
UNUSED = ("thebe",)
# Script or style -> what a page that needs it says somewhere.
NEEDED_BY = {"design-tabs.js": "sd-tab", "exercise.css": "exercise", "proof.css": "proof"}
FONT = re.compile(r"@font-face\{[^}]*Font Awesome[^}]*\}")
# What the theme brings and no page of ours asks for.
DROPPED = ("scripts/fontawesome.js", "scripts/fontawesome.js.LICENSE.txt", "vendor/fontawesome")


def wanted(asset: Any, body: str) -> bool:
    """Is a script or a style of use on a page with this body?"""
    name, text = named(asset)
    if any(word in (name + text).lower() for word in UNUSED):
        return False
    return all(word in body for file, word in NEEDED_BY.items() if name.endswith(file))


def named(asset: Any) -> tuple[str, str]:
    """What makes two scripts or styles the same one."""
    return str(asset.filename or ""), str(asset.attributes.get("body") or "")


def trim(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    body = str(context.get("body", ""))
    for kind in ("script_files", "css_files"):
        kept = {named(asset): asset for asset in context.get(kind, []) if wanted(asset, body)}
        context[kind] = list(kept.values())


def without_fonts(css: str) -> str:
    """A style sheet that asks for none of Font Awesome's fonts, nor for a map of itself."""
    return re.sub(r"/\*# sourceMappingURL=.*?\*/", "", FONT.sub("", css))


def drop(app: Any, exception: Exception | None) -> None:
    """Take out of the site what nothing loads, and the maps for those who debug the theme."""
    if exception or app.builder.name != "html":
        return
    static = Path(app.outdir) / "_static"
    for name in DROPPED:
        path = static / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in static.rglob("*.map"):
        path.unlink()
    for path in (static / "styles").glob("*.css"):
        path.write_text(without_fonts(path.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    # After everything that adds a script.
    app.connect("html-page-context", trim, priority=950)
    app.connect("build-finished", drop)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
