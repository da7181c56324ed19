"""Exercises of the book on paper, and their solutions: at the end, each under its number.

On the site a solution is folded away under its exercise. Paper does not fold.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx_exercise.nodes import exercise_enumerable_node, exercise_node, solution_node

from paper_boxes import Box, Moved, SolutionAt, box, content, page_of

EXERCISES = (exercise_node, exercise_enumerable_node)
TITLE = "Solutions"


class Solutions(SphinxPostTransform):
    """Move every solution into an appendix; its exercise says where it stands."""

    # After the exercises have their numbers and the chapters their order, before boxes are made.
    default_priority = 310
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        exercises = {
            one["label"]: one
            for one in self.document.findall(nodes.Element)
            if isinstance(one, EXERCISES)
        }
        appendix = nodes.section("", nodes.title("", "", nodes.Text(TITLE)), ids=["solutions"])
        for file in list(self.document.findall(addnodes.start_of_file)):
            solved = list(file.findall(solution_node))
            if solved:
                appendix += self.chapter(file, solved, exercises)
        for exercise in exercises.values():
            exercise.replace_self(box(exercise, "exercise", exercise.next_node(nodes.title)))
        if len(appendix) > 1:
            book = self.document.next_node(nodes.section)
            book += [nodes.raw("", "\\fldpappendix", format="latex"), appendix]

    def chapter(
        self,
        file: addnodes.start_of_file,
        solved: list[solution_node],
        exercises: dict[str, nodes.Element],
    ) -> nodes.section:
        """The solutions of a chapter, under its title."""
        docname = str(file["docname"])
        found = self.env.toc_secnumbers.get(docname, {}).get("", ())
        words = self.env.titles[docname].astext()
        title = f"Chapter {found[0]}. {words}" if found else words
        section = nodes.section("", nodes.title("", "", nodes.Text(title)))
        moved = Moved("", docname=docname)
        for solution in solved:
            exercise = exercises[solution["target_label"]]
            exercise += SolutionAt("", target=f"{docname}:{solution['ids'][0]}")
            moved += entry(solution, exercise)
            solution.parent.remove(solution)
        section += moved
        return section


def entry(solution: solution_node, exercise: nodes.Element) -> Box:
    """A solution under the title of its exercise, which leads back to it."""
    back = nodes.reference("", "", refuri=f"%{page_of(exercise)}#{exercise['ids'][0]}")
    named = exercise.next_node(nodes.title)
    back += [child.deepcopy() for child in named.children]
    made = Box("", ids=solution["ids"], kind="solution")
    made += nodes.title("", "", back)
    made += content(solution)
    return made


def setup(app: Any) -> dict[str, bool]:
    app.add_post_transform(Solutions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
