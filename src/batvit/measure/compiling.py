"""What torch.compile says where it does not work, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from batvit.measure.memory import is_memory
from batvit.storage.files import first_line

COMPILERS = ("torch._dynamo", "torch._inductor")


@contextmanager
def explained_compiler() -> Iterator[None]:
    """Say what to do where ``torch.compile`` does not work.

    Raises:
        ValueError: with the compiler's reason. What the model itself gets wrong stays as it is.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_of_the_compiler(error) or is_memory(error):
            raise
        raise ValueError(
            f"torch.compile does not work here ({first_line(error)}); run without compiling"
        ) from error


def _is_of_the_compiler(error: RuntimeError) -> bool:
    # where torch.compile knows no way at all, it says so itself
    if str(error).startswith("torch.compile"):
        return True
    kind = type(error)
    # TorchRuntimeError is an error of the model that is compiled
    return kind.__module__.startswith(COMPILERS) and kind.__name__ != "TorchRuntimeError"
