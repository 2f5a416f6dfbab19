"""The section of a model card that says what a saved model was reduced with."""

import json
import re
from pathlib import Path
from typing import Any

FRONT = "---\nlibrary_name: transformers\ntags:\n- batvit\n---\n"
SECTION = re.compile(r"\n<!-- batvit -->.*<!-- /batvit -->\n", re.DOTALL)
TEXT = """
<!-- batvit -->
## Fewer tokens

This model was saved while it ran with fewer tokens: `{fields}`. transformers alone loads the dense
model. With `pip install batvit`, this loads it as it was:

```python
import batvit
model = batvit.load({name})
```
<!-- /batvit -->
"""


def write_card(config: Any, folder: Path, name: str | None = None) -> None:
    """Say in the ``README.md`` of a folder what the configuration saved there says of a reduction.

    It is made, or gets or loses its section.

    Args:
        config: of the model.
        folder: where it was saved.
        name: by which it is loaded; that of the folder by default.
    """
    card = folder / "README.md"
    # whoever wrote it may have used another encoding
    before = card.read_text(encoding="utf-8", errors="surrogateescape") if card.is_file() else ""
    after = SECTION.sub("", before)
    fields = saved_reduction(config)
    if fields is not None:
        name = name or folder.resolve().name
        after = (after or FRONT) + TEXT.format(fields=json.dumps(fields), name=json.dumps(name))
    if after != before:
        card.write_text(after, encoding="utf-8", errors="surrogateescape")


def saved_reduction(config: Any) -> Any:
    """Return the entry that batvit made in a configuration or one of its parts; None if none."""
    import transformers

    parts = [config]
    for part in vars(config).values():
        # of a model with two towers each has a configuration
        if isinstance(part, transformers.PreTrainedConfig):
            parts.append(part)
    for part in parts:
        fields = getattr(part, "batvit", None)
        if fields is not None:
            return fields
    return None
