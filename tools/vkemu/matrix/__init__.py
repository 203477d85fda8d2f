"""Windows x policies: each cell decided by exploring the window's litmus test on the policy."""

from vkemu.matrix.cell import Cell, Question, answer
from vkemu.matrix.compute import compute, questions

__all__ = ["Cell", "Question", "answer", "compute", "questions"]
