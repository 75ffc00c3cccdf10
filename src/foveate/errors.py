"""Every error Foveate raises on purpose, each also a built-in one so that callers can catch either; and its warning."""

from collections.abc import Iterator
from contextlib import contextmanager


class Note(UserWarning):
    """What a user should know of what was given; of the processes of a command only the first says it, and once."""


class FoveateError(Exception):
    """Base of all errors raised for a reason the user can act on; the command line prints its text and exits with 2."""


class ConfigError(FoveateError, ValueError):
    """A configuration value, key or combination that is not allowed."""


class GeometryError(FoveateError, ValueError):
    """Sizes, windows or fields of view that contradict each other."""


class NetworkError(FoveateError, ValueError):
    """A network that cannot be built, or whose input or output does not fit."""


class UnsupportedImageError(FoveateError, ValueError):
    """A file that no reader can open."""


class SeveralPlanesError(UnsupportedImageError):
    """A file of several planes, of which none was chosen, or one that is not there."""


class ImageReadError(FoveateError, OSError):
    """A file that opened but whose pixels could not be read, such as a truncated one."""


class MissingImageError(ImageReadError):
    """A file that is not there."""


class DatasetError(FoveateError, ValueError):
    """Images and masks that do not make a data set."""


class CheckpointError(FoveateError, ValueError):
    """A checkpoint that is missing, damaged or made by another configuration."""


class OutputExistsError(FoveateError, FileExistsError):
    """A result that would be overwritten."""


class OutputWriteError(FoveateError, OSError):
    """A result that could not be written, for example on a full disk."""


class OutputInUseError(FoveateError, BlockingIOError):
    """A result that another process is writing at the moment."""


class StoredBlockError(FoveateError, ValueError):
    """A finished block on disk that is torn, damaged or of another run."""


class StoppedError(FoveateError, InterruptedError):
    """Work that was asked to stop before it was done; what is finished is kept."""


class DeviceMemoryError(FoveateError, MemoryError):
    """Work that does not fit into the memory of the device, or into the limit that was given."""


class WorkerError(FoveateError, RuntimeError):
    """A process that helped with the work and ended before its share was done."""


class NonFiniteLossError(FoveateError, ArithmeticError):
    """A loss that became infinite or not a number."""


# What was given is wrong, so that work on it cannot begin; whatever else is raised ended work.
MISTAKES = (ConfigError, DatasetError, MissingImageError, UnsupportedImageError, OutputExistsError, OutputInUseError)


@contextmanager
def translated(kind: type[FoveateError], problem: str, remedy: str = "") -> Iterator[None]:
    """Turn whatever a library raises about a file into one error of ours.

    Our own errors and missing optional packages pass.

    Args:
        kind: of the error.
        problem: what could not be done, naming the file.
        remedy: what to do.
    """
    try:
        yield
    except (FoveateError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise kind(f"{problem}: {reason_of(error)}{remedy and f'; {remedy}'}") from error


def reason_of(error: BaseException) -> str:
    """The first line of what an error says, at most 300 letters; some say nothing but their kind."""
    lines = str(error).strip().splitlines()
    if not lines or isinstance(error, KeyError):
        return " ".join([type(error).__name__, *lines[:1]])
    return lines[0] if len(lines[0]) <= 300 else f"{lines[0][:300]}..."
