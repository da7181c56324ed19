"""The head of a page, for those who link to it: address, name, description, picture.

The address of the site stands in `_config.yml` (`html: baseurl`), that of the sources under
`repository`; everything else that needs one of them asks here or the theme.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from docutils import nodes

from plain_text import cut, line
from social_cards import HEIGHT, WIDTH, card

ABLE = "You will be able to"
MOST = 200


def description(doctree: nodes.document) -> str:
    """What a chapter promises its reader; of another page, its first words."""
    paragraphs = [line(node) for node in doctree.findall(nodes.paragraph)]
    able = next((text for text in paragraphs if text.startswith(ABLE)), "")
    text = able
    for paragraph in paragraphs:
        if able or len(text) > MOST:
            break
        text = f"{text} {paragraph}".strip()
    return cut(text, MOST)


def known(app: Any, config: Any) -> None:
    """The extensions that ask for the address of the site get the one that is known."""
    config.notfound_urls_prefix = urlsplit(config.html_baseurl or "").path or "/"
    config.sitemap_url_scheme = "{link}"


def add_tags(
    app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    root = app.config.root_doc
    if pagename == root:
        context["docstitle"] = ""  # the page's own title is the book's
    if doctree is None:
        return
    metas = [node for node in doctree.findall(nodes.meta) if node.get("name") == "description"]
    given = metas[0]["content"] if metas else None
    what = str(given or description(doctree))
    title = line(doctree.next_node(nodes.title) or nodes.Text(app.config.project))
    site = str(app.config.html_baseurl or "")
    tags = {
        "og:title": title,
        "og:type": "website" if pagename == root else "article",
        "og:site_name": str(app.config.html_title or app.config.project),
        "og:description": what,
        "og:url": urljoin(site, app.builder.get_target_uri(pagename)),
    }
    if app.builder.name == "html":
        path = card(Path(app.outdir), pagename, title, what, urlsplit(site).netloc)
        tags["og:image"] = urljoin(site, path)
        tags["og:image:alt"] = f"The title of the page: {title}"
        tags["og:image:width"], tags["og:image:height"] = str(WIDTH), str(HEIGHT)
    lines = [
        f'<meta property="{name}" content="{html.escape(text)}" />' for name, text in tags.items()
    ]
    lines.append('<meta name="twitter:card" content="summary_large_image" />')
    if not given:
        lines.append(f'<meta name="description" content="{html.escape(what)}" />')
    context["metatags"] = context.get("metatags", "") + "\n".join(lines) + "\n"


def hosts(app: Any, exception: Exception | None) -> None:
    """What search engines ask for; and GitHub's server keeps folders with an underscore."""
    if exception or app.builder.name != "html":
        return
    out = Path(app.outdir)
    (out / ".nojekyll").touch()
    sitemap = urljoin(str(app.config.html_baseurl or ""), "sitemap.xml")
    (out / "robots.txt").write_text(f"User-agent: *\nAllow: /\nSitemap: {sitemap}\n")


def setup(app: Any) -> dict[str, bool]:
    app.connect("config-inited", known, priority=900)
    app.connect("html-page-context", add_tags)
    app.connect("build-finished", hosts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
