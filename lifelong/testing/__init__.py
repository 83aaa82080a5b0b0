"""Tools for tests of what is built on lifelong: the contract of a strategy, and toys to run it on."""

from lifelong.testing.contract import check_strategy
from lifelong.testing.errors import ContractError
from lifelong.testing.toys import labelled_stream, toy_model, toy_stream
from lifelong.testing.writer import toy_writer

__all__ = ["ContractError", "check_strategy", "labelled_stream", "toy_model", "toy_stream", "toy_writer"]
