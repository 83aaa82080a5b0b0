"""What a check says that does not hold."""


class ContractError(AssertionError):
    """A strategy does not do what every strategy must; says what, and where it was seen."""
