"""What the help says of each field of a configuration."""

import ast
import inspect

from batvit.config.config import BATConfig
from batvit.config.presets import PRESETS

MODES = {name.replace("_", "-"): fields for name, fields in PRESETS.items()}


def field_help(kind: type) -> dict[str, str]:
    """The sentence under each field of a dataclass."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
        ):
            assert isinstance(text.value, ast.Constant)
            texts[field.target.id] = " ".join(str(text.value.value).split()).replace("%", "%%")
    return texts


def in_modes(name: str) -> str:
    """What a field of BATConfig is by default, or in each preset, in parentheses."""
    values = {mode: fields.get(name, getattr(BATConfig, name)) for mode, fields in MODES.items()}
    if len(set(values.values())) > 1:
        return f" ({', '.join(f'{mode}: {value}' for mode, value in values.items())})"
    return "" if values["paper"] is None else f" ({values['paper']})"
