"""What may vary: variables, the search space, and the map to and from the unit cube."""

from dspex.space.derived import Derived
from dspex.space.labels import Scalar
from dspex.space.leaf import Leaf
from dspex.space.options import Bool, Choice, Component
from dspex.space.space import Space
from dspex.space.variables import Float, Int, Variable

__all__ = [
    "Bool",
    "Choice",
    "Component",
    "Derived",
    "Float",
    "Int",
    "Leaf",
    "Scalar",
    "Space",
    "Variable",
]
