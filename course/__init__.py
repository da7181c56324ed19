"""The course's engine: assignments from one master notebook each, graded in a box.

What a module of checks needs is here. ``python -m course`` has the commands.
"""

from course.calls import Call, Oracle
from course.checks import check, hidden
from course.draws import Draw
from course.parts import Part
from course.readings import near, number, table, tensor, tensors, text
from course.tried import right, wrong
from course.values import Seed

__all__ = [
    "Call",
    "Draw",
    "Oracle",
    "Part",
    "Seed",
    "check",
    "hidden",
    "near",
    "number",
    "right",
    "table",
    "tensor",
    "tensors",
    "text",
    "wrong",
]
