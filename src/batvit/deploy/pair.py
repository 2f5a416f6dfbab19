"""Two exported files of one model, dense and reduced: whether they compare, and what they cost."""

from pathlib import Path
from typing import Any

from batvit.deploy.format import Engine
from batvit.deploy.load import load_engine
from batvit.deploy.metadata import PREPROCESSING, ExportMetadata

SAME_IN_BOTH = ("input_size", "num_classes", "dense_macs", "param_count", *PREPROCESSING)


def load_pair(
    dense_file: str | Path, reduced_file: str | Path, *, precision: str = "fp32"
) -> tuple[Engine, Engine]:
    """Return two exported files as modules in eval mode, the dense one first.

    Raises:
        ValueError: if they are not one model without a reduction and with one.
        ValueError, FileNotFoundError: as :func:`batvit.load_engine`.
    """
    dense = load_engine(dense_file, precision=precision)
    reduced = load_engine(reduced_file, precision=precision)
    if dense.metadata.config is not None:
        raise ValueError(
            f"dense_file={dense_file} is a reduced model; give one of the model without a reduction"
        )
    for name in SAME_IN_BOTH:
        of_dense = getattr(dense.metadata, name)
        of_reduced = getattr(reduced.metadata, name)
        if of_dense != of_reduced:
            raise ValueError(
                f"{dense_file} and {reduced_file} do not compare: "
                f"{name} is {of_dense} and {of_reduced}"
            )
    return dense.eval(), reduced.eval()


def runtime_of_pair(dense: Engine, reduced: Engine) -> str:
    """Return what runs two engines, with versions."""
    return _of_both(dense.runtime, reduced.runtime)


def precision_of_pair(dense: Engine, reduced: Engine, *, precision: str) -> str:
    """Return what two engines compute in, which were loaded with a precision."""
    of_dense = "int8" if dense.metadata.int8 else precision
    of_reduced = "int8" if reduced.metadata.int8 else precision
    return _of_both(of_dense, of_reduced)


def cost_of(metadata: ExportMetadata) -> dict[str, Any]:
    """Return what an exported file costs, as it says itself, with timm's names."""
    return {
        "model": metadata.model,
        "img_size": metadata.input_size[1:],
        "param_count": metadata.param_count,
        "config": metadata.config,
        "gmacs": metadata.macs / 1e9,
        "dense_gmacs": metadata.dense_macs / 1e9,
        "mac_ratio": metadata.dense_macs / metadata.macs,
        "int8": metadata.int8,
    }


def known_costs(reduced: Engine) -> dict[str, Any]:
    """Return the costs that :func:`batvit.benchmark` cannot count of an engine, as arguments."""
    metadata = reduced.metadata
    macs = (metadata.dense_macs, metadata.macs)
    return {"macs": macs, "param_count": metadata.param_count}


def _of_both(dense: str, reduced: str) -> str:
    if dense == reduced:
        return dense
    return f"{dense} dense, {reduced} reduced"
