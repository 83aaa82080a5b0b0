"""The data that the embedded model ``nano`` is trained on: plain text, copying, and invented episodes of reading.

Everything drawn here is a pure function of a seeded `Dice`, and every fact is invented: subjects are made of
syllables and their attributes are drawn at random, so that nothing that a stream teaches can be learned in advance.
"""

from nano_data.copying import copy_row
from nano_data.episodes import (
    UNKNOWN,
    Episode,
    closed_episode,
    cloze_sheet,
    draw_sheet,
    family_episodes,
    read_sheet,
    shared_prompt,
    simple_sheet,
)
from nano_data.facts import Fact, draw_facts
from nano_data.text import common_words, load_text, split_sentences
from nano_data.words import Dice, invented_name

__all__ = [
    "UNKNOWN",
    "Dice",
    "Episode",
    "Fact",
    "closed_episode",
    "cloze_sheet",
    "common_words",
    "copy_row",
    "draw_facts",
    "draw_sheet",
    "family_episodes",
    "invented_name",
    "load_text",
    "read_sheet",
    "shared_prompt",
    "simple_sheet",
    "split_sentences",
]
