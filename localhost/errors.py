"""What can go wrong while a function app is loaded or one of its functions runs."""


class HostError(Exception):
    """Anything the operator has to put right; the text says what and where."""


class LoadError(HostError):
    """The function app cannot be indexed."""


class InvocationFailed(Exception):
    """A function raised, ran out of time, or could not be called.

    Triggers see this class only, never the user's own exception types.

    Attributes:
        function: Name of the function.
        type: Class name of what was raised, `ValueError`.
        message: Its text; may be empty.
        details: The formatted traceback.
    """

    def __init__(self, function: str, type: str, message: str, details: str) -> None:
        super().__init__(f"Function {function} failed: {type}: {message}")
        self.function = function
        self.type = type
        self.message = message
        self.details = details
