"""What the source says of each field of a configuration, for help and documents."""

import ast
import inspect

from batvit.config.config import BATConfig
from batvit.config.presets import PRESETS


def field_help(kind: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, in one line, as argparse takes it."""
    definition = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(below, ast.Expr):
            continue
        assert isinstance(field.target, ast.Name)
        assert isinstance(below.value, ast.Constant)
        # the docstring may run over several lines
        text = " ".join(str(below.value.value).split())
        texts[field.target.id] = text.replace("%", "%%")
    return texts


def preset_values(name: str) -> str:
    """Return the value that a field of BATConfig has in the presets, in parentheses.

    Where it is the same in all of them, it stands there once; None is not shown then.
    """
    default = getattr(BATConfig, name)
    values = {mode: fields.get(name, default) for mode, fields in PRESETS.items()}
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{mode}: {value}" for mode, value in values.items())
        return f" ({listed})"
    if default is None:
        return ""
    return f" ({default})"
