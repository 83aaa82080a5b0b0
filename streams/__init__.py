"""The catalogue of task streams: each function returns a ``lifelong.TaskStream``.

A stream's function has the name of its module. Imports are eager, so that ``streams.world_facts`` is the function
in every case: importing a submodule for the first time would bind its name to the module.
"""

from streams.world_facts import world_facts

__all__ = ["world_facts"]
