"""What a user holds afterwards: the result of a study, a study with a loop of one's own."""

from dspex.results.result import OptimizationResult, load
from dspex.results.study import Study

__all__ = ["OptimizationResult", "Study", "load"]
