"""How a study proceeds: events in, commands out; and the ports through which it acts."""

from dspex.engine.engine import Engine
from dspex.engine.settings import REPRODUCIBLE_K, Settings, block_size

__all__ = ["REPRODUCIBLE_K", "Engine", "Settings", "block_size"]
