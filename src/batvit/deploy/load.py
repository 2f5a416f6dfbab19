"""Exported models, loaded into the engine of their format."""

from pathlib import Path

import torch

from batvit.deploy.format import Engine
from batvit.deploy.formats import SUFFIXES, format_of, is_exported
from batvit.storage.reading import check_file


def load_engine(path: str | Path, *, precision: str = "fp32", threads: int | None = None) -> Engine:
    """Load what :func:`batvit.export` wrote, for the CPU: a module that is evaluated and timed like
    any other.

    Args:
        path: an ``.onnx``, ``.xml`` (OpenVINO; its ``.bin`` beside it) or ``.pt2`` file.
        precision: what the engine computes in: fp32; bf16 with OpenVINO, which takes the same file.
        threads: of the engine; as many as torch has by default, and always for a ``.pt2``, which
            torch runs.

    Raises:
        ValueError: if the suffix, the precision or the content of the file is none of these; if the
            engine is not installed.
        FileNotFoundError, OSError: if there is no such file, or it is no regular one.

    Examples:
        The file is that of the example of :func:`export`:

        >>> engine = batvit.load_engine("model.pt2")
        >>> engine(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 10])
    """
    path = Path(path)
    if not is_exported(path):
        raise ValueError(f"{path}: an exported model is a file ending in {', '.join(SUFFIXES)}")
    check_file(path)
    form = format_of(path)
    for file in form.files_beside(path):
        if file.exists():
            check_file(file)
    if precision not in form.precisions:
        raise ValueError(
            f"{path}: runs in fp32, got precision={precision}; OpenVINO's .xml runs in bf16, too"
        )
    try:
        return form.load(path, threads or torch.get_num_threads(), precision)
    except (ValueError, OSError):
        raise
    except Exception as error:
        # whatever an engine stumbles over, the file is no good
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: cannot be read ({reason}); export it again") from error
