"""Boxes of the book on paper: theorems, exercises, notes, cards, each an environment of fldp.sty.

On the site these are boxes of three extensions, whose LaTeX knows neither the numbers of chapters
nor that a solution stands elsewhere. Here each becomes a `Box` with a title that is complete.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx_proof.nodes import NODE_TYPES, proof_node

NOTES = (nodes.admonition, nodes.note, nodes.tip, nodes.hint, nodes.error)
WARNINGS = (nodes.warning, nodes.caution, nodes.danger, nodes.attention, nodes.important)


class Box(nodes.Admonition, nodes.Element):
    """`kind` names an environment; its first child is the title, if it has one."""


class Moved(nodes.Part, nodes.Element):
    """What stands elsewhere than on its page `docname`, whose labels and links it keeps."""


class SolutionAt(nodes.Part, nodes.Element):
    """At the end of an exercise: the page of the solution with the label `target`."""


def page_of(node: nodes.Node) -> str:
    """The page of the site that a node of the whole book comes from."""
    while node is not None:
        if isinstance(node, addnodes.start_of_file | Moved):
            return str(node["docname"])
        node = node.parent
    return ""


def number(env: Any, node: nodes.Element, kind: str) -> str:
    """The number that the site gives to a figure, a theorem, an exercise; empty for none."""
    known = env.toc_fignumbers.get(page_of(node), {}).get(kind, {})
    found = next((known[one] for one in node["ids"] if one in known), ())
    return ".".join(str(part) for part in found)


def content(node: nodes.Element) -> list[nodes.Node]:
    """What stands in a box, without its title and without the section that wraps it."""
    found: list[nodes.Node] = []
    for child in node.children:
        if isinstance(child, nodes.section):
            found += child.children
        elif not isinstance(child, nodes.title):
            found.append(child)
    return found


def titled(node: nodes.Element, words: str) -> nodes.title:
    """A title that begins with these words, followed by the title of the node in brackets."""
    title = nodes.title("", "", nodes.Text(words))
    own = node.next_node(nodes.title)
    if own is None or own.parent is not node or not own.children:
        return title
    # The extension writes " (Named)"; without brackets of its own a title is given them.
    bracketed = own.astext().strip().startswith("(")
    opening = "" if own.astext().startswith(" ") else " "
    title += nodes.Text(opening if bracketed else f"{opening}(")
    title += own.children
    title += nodes.Text("" if bracketed else ")")
    return title


def box(node: nodes.Element, kind: str, title: nodes.title | None) -> Box:
    """A box with what a node holds, under the same labels."""
    made = Box("", ids=node["ids"], kind=kind)
    if title is not None:
        made += title
    made += content(node)
    return made


class Boxes(SphinxPostTransform):
    """Turn every theorem, proof, note and card into a box; exercises have a module of their own."""

    # References have found what they name by now, and exercises their titles.
    default_priority = 320
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        self.theorems()
        self.proofs()
        self.notes()
        self.cards()

    def theorems(self) -> None:
        for node in list(self.document.findall(lambda one: type(one) in NODE_TYPES.values())):
            words = f"{node['realtype'].title()} {number(self.env, node, node['countertype'])}"
            node.replace_self(box(node, "theorem", titled(node, words.strip())))

    def proofs(self) -> None:
        for node in list(self.document.findall(proof_node)):
            made = Box("", ids=node["ids"], kind="proof")
            # The extension wraps what it holds in an admonition without a title.
            made += node[0].children
            node.replace_self(made)

    def notes(self) -> None:
        for node in list(self.document.findall(lambda one: isinstance(one, NOTES + WARNINGS))):
            kind = "warning" if isinstance(node, WARNINGS) else "note"
            title = node.next_node(nodes.title)
            if title is None or title.parent is not node:
                title = nodes.title("", "", nodes.Text(kind.title()))
            node.replace_self(box(node, kind, title))

    def cards(self) -> None:
        """The grid of cards of the landing page: side by side, as it is there."""
        for grid in list(self.document.findall(lambda one: has_class(one, "sd-container-fluid"))):
            cards = [one for one in grid.findall(nodes.container) if has_class(one, "sd-card")]
            row = Box("", kind="cards", argument=str(len(cards)))
            for card in cards:
                body = next(one for one in card.findall() if has_class(one, "sd-card-body"))
                made = Box("", kind="card")
                for child in body.children:
                    if has_class(child, "sd-card-title"):
                        made.insert(0, nodes.title("", "", *child.children))
                    else:
                        made += child
                row += made
            grid.replace_self(row)


def has_class(node: nodes.Node, name: str) -> bool:
    return isinstance(node, nodes.Element) and name in node.get("classes", [])


def visit_box(self: Any, node: Box) -> None:
    """`\\begin{fldpKIND}{title}`, with the labels inside, so that they are on its page."""
    # No empty line before a card: it would begin a new row.
    self.body.append("" if node["kind"] == "card" else "\n")
    self.body.append(f"\\begin{{fldp{node['kind']}}}")
    labels = self.hypertarget_to(node, anchor=True) if node["ids"] else ""
    if "argument" in node:
        self.body.append(f"{{{node['argument']}}}")
    if node.children and isinstance(node[0], nodes.title):
        title = node[0]
        node.remove(title)
        self.body.append(f"{{{labels}")
        for child in title.children:
            child.walkabout(self)
        self.body.append("}\n")
    else:
        self.body.append(f"{labels}\n")
    # A float cannot stand in a box.
    self.no_latex_floats += 1


def depart_box(self: Any, node: Box) -> None:
    self.no_latex_floats -= 1
    self.body.append(f"\\end{{fldp{node['kind']}}}%\n" + ("" if node["kind"] == "card" else "\n"))


def visit_moved(self: Any, node: Moved) -> None:
    self.curfilestack.append(node["docname"])


def depart_moved(self: Any, node: Moved) -> None:
    self.curfilestack.pop()


def visit_solution_at(self: Any, node: SolutionAt) -> None:
    self.body.append(f"\n\\fldpsolutionat{{{self.idescape(node['target'])}}}\n")
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_node(Box, latex=(visit_box, depart_box))
    app.add_node(Moved, latex=(visit_moved, depart_moved))
    app.add_node(SolutionAt, latex=(visit_solution_at, None))
    app.add_post_transform(Boxes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
