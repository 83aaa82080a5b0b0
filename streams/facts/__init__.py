"""The tables behind ``streams.world_facts``: a module each, with the facts, their source and their wording."""

from streams.facts import capitals, elements, moons, status_codes, units

__all__ = ["capitals", "elements", "moons", "status_codes", "units"]
