"""What each reverse map costs as work grows: measured on the kernel model, one axis at a time."""

from vkemu.compare.axes import AXES, Axis
from vkemu.compare.fit import growth
from vkemu.compare.measure import Sample, Series, measure

__all__ = ["AXES", "Axis", "Sample", "Series", "growth", "measure"]
