"""Every link inside the built site leads somewhere: ``python tools/check_links.py [SITE]``.

Its fragment too. Prints what is broken, one a line, and exits with 1 if anything is. Addresses on
other hosts are not asked for; the page of a wrong address is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).resolve().parent.parent
SITE = HERE / "_build" / "html"
LEADS = {"href", "src", "poster", "data"}
# Asked for from any folder, so its links begin at the root of the host.
ANYWHERE = "404.html"


class Page(HTMLParser):
    """The links of a page, and the places in it that a link can name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name in LEADS:
                self.links.append(value)
            if name == "id" or (tag == "a" and name == "name"):
                self.places.add(value)


def broken(site: Path) -> Iterator[str]:
    """`page: link` for each link that leads nowhere."""
    pages = {
        path: Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.parts and path.name != ANYWHERE
    }
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            if target.is_dir():
                target /= "index.html"
            there = target.is_file()
            other = pages.get(target)
            if there and other is not None:
                # What a script reads from the address is no place: the calculator's settings.
                there = "=" in parts.fragment or unquote(parts.fragment) in other.places
            if not there:
                yield f"{path.relative_to(site)}: {link}"


def main() -> int:
    site = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else SITE
    found = list(broken(site))
    for line in found:
        print(line)
    print(f"{len(found)} broken links in {len(list(site.rglob('*.html')))} pages.")
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
