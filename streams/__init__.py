"""The catalogue of task streams: each function returns a ``lifelong.TaskStream``.

A stream's function has the name of its module. Imports are eager, so that ``streams.world_facts`` is the function
in every case: importing a submodule for the first time would bind its name to the module.
"""

from streams.absa19 import absa19
from streams.concept1k import concept1k
from streams.five_l import five_l
from streams.general_ability import general_ability
from streams.multiple_choice import multiple_choice
from streams.python_reference import python_reference
from streams.standard_cl import standard_cl
from streams.world_facts import world_facts

__all__ = [
    "absa19",
    "concept1k",
    "five_l",
    "general_ability",
    "multiple_choice",
    "python_reference",
    "standard_cl",
    "world_facts",
]
