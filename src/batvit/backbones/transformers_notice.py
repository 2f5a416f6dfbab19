"""What transformers says when it loads or saves a model with fewer tokens.

It has no place where a library may add to ``from_pretrained``, ``save_pretrained`` or the cards of
``Trainer`` without a type of model of its own, which nobody could load without that library. So
these three are wrapped, once they are imported; importing batvit imports neither them nor torch.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from batvit.backbones.transformers_card import saved_reduction, write_card

_QUIET = ContextVar("quiet", default=False)


def watch() -> None:
    """Wrap what transformers loads and saves by, now or when it is imported."""
    for name, wrap in WRAPPERS.items():
        if name in sys.modules:
            wrap(sys.modules[name])
        else:
            _Finder.waiting[name] = wrap
    sys.meta_path.insert(0, _Finder())


@contextmanager
def quiet() -> Iterator[None]:
    """Load a dense model on purpose, without a word."""
    before = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(before)


class _Finder(MetaPathFinder):
    """Finds a module as Python does, and has it wrapped once it is run."""

    waiting: dict[str, Callable[[Any], None]] = {}  # noqa: RUF012 - emptied as they are imported

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        wrap = self.waiting.pop(name, None)
        spec = None if wrap is None else PathFinder.find_spec(name, path)
        if wrap is None or spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        run = loader.exec_module

        def run_and_wrap(module: Any) -> None:
            run(module)
            wrap(module)

        loader.exec_module = run_and_wrap
        return spec


def _wrap_models(module: Any) -> None:
    kind = module.PreTrainedModel
    load = kind.from_pretrained.__func__
    save = kind.save_pretrained

    @wraps(load)
    def from_pretrained(cls: Any, *args: Any, **arguments: Any) -> Any:
        loaded = load(cls, *args, **arguments)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if not _QUIET.get() and saved_reduction(model.config) is not None:
            warnings.warn(
                f"{model.config.name_or_path} was saved with fewer tokens, and is loaded dense; "
                f"load it with batvit.load({model.config.name_or_path!r})",
                stacklevel=2,
            )
        return loaded

    @wraps(save)
    def save_pretrained(self: Any, save_directory: Any, *args: Any, **arguments: Any) -> Any:
        saved = save(self, save_directory, *args, **arguments)
        is_main = args[0] if args else arguments.get("is_main_process", True)
        if is_main and (Path(save_directory) / "config.json").is_file():
            write_card(self.config, Path(save_directory))
        return saved

    upload = kind._upload_modified_files

    @wraps(upload)
    def _upload_modified_files(
        self: Any, folder: Any, repo_id: str, *args: Any, **arguments: Any
    ) -> Any:
        # a card of transformers' own has taken the place of the one that was saved
        if (Path(folder) / "config.json").is_file():
            write_card(self.config, Path(folder), repo_id)
        return upload(self, folder, repo_id, *args, **arguments)

    kind.from_pretrained = classmethod(from_pretrained)
    kind.save_pretrained = save_pretrained
    kind._upload_modified_files = _upload_modified_files


def _wrap_trainer(module: Any) -> None:
    create = module.Trainer.create_model_card

    @wraps(create)
    def create_model_card(self: Any, *args: Any, **arguments: Any) -> None:
        create(self, *args, **arguments)
        config = getattr(self.accelerator.unwrap_model(self.model), "config", None)
        if config is not None and self.is_world_process_zero():
            write_card(config, Path(self.args.output_dir))

    module.Trainer.create_model_card = create_model_card


WRAPPERS = {
    "transformers.modeling_utils": _wrap_models,
    "transformers.trainer": _wrap_trainer,
}
