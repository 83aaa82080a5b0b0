"""From a folder of documents to a stream of question-answer tasks.

``build_stream`` does it all: documents are read, cut into passages, questions about each are written by a generator,
screened, and saved as a stream folder that `TaskStream.load`, an experiment or ``lifelong run`` takes.
"""

from lifelong.documents.building import BuildReport, build_stream
from lifelong.documents.generator import Excerpt, Generator, Pair
from lifelong.documents.models import EndpointGenerator, ModelGenerator
from lifelong.documents.reading import Document, read_document, read_folder
from lifelong.documents.rules import RuleGenerator
from lifelong.documents.screen import Screen

__all__ = [
    "BuildReport",
    "Document",
    "EndpointGenerator",
    "Excerpt",
    "Generator",
    "ModelGenerator",
    "Pair",
    "RuleGenerator",
    "Screen",
    "build_stream",
    "read_document",
    "read_folder",
]
