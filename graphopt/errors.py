"""Every error that graphopt raises on purpose.

    GraphoptError                    1  something failed
    |- UsageError                    2  a flag, a spec, an option or a name is wrong
    |- ModelError                    3  the model is at fault
    |  |- UnreadableModelError       3  the bytes are no ONNX model, or its data is missing
    |  |- InvalidModelError          3  the model is read, but breaks the rules of ONNX
    |  `- ShapeError                 3  shapes contradict each other, or the shapes asked for
    |- EquivalenceError              4  the result does not compute what the original does
    |- PassError                     5  a pass failed, and the run is strict
    |- RuntimeUnavailableError       1  ONNX Runtime cannot run this model here
    |- MemoryLimitError              1  the run takes more memory than it may
    `- OutputError                   1  the result cannot be written

The number is the exit code of the command line. A message is one line that says
what is wrong and what to do about it.
"""

from collections.abc import Sequence


class GraphoptError(Exception):
    """The root of graphopt's errors; `exit_code` is the command line's."""

    exit_code = 1


class UsageError(GraphoptError):
    """The request is wrong: an unknown pass, a bad option, a malformed value."""

    exit_code = 2


class ModelError(GraphoptError):
    """The model given is at fault."""

    exit_code = 3


class UnreadableModelError(ModelError):
    """The source is no ONNX model, is cut short, or its external data cannot be read."""


class InvalidModelError(ModelError):
    """The model is readable and breaks the rules of ONNX.

    Attributes:
        problems: every problem found, one line each, the first of them in the message.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class ShapeError(ModelError):
    """Shapes contradict each other or the shapes that the user gave."""


class EquivalenceError(GraphoptError):
    """The optimized model does not compute what the original does."""

    exit_code = 4


class PassError(GraphoptError):
    """A pass raised, or left an invalid model, in a strict run."""

    exit_code = 5


class RuntimeUnavailableError(GraphoptError):
    """ONNX Runtime cannot load or run this model here; the message says why."""


class MemoryLimitError(GraphoptError):
    """The run takes, or would take, more memory than the limit that the user gave."""


class OutputError(GraphoptError):
    """The result cannot be written: the place is taken, missing or read-only."""


def reason_of(error: BaseException) -> str:
    """What any exception says, on one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
