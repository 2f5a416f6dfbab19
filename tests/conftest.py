"""Property tests try the same examples every time; no clock decides whether they pass."""

import importlib.util
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("batvit", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("batvit")

# two threads that wait for one another on a busy machine are slower than one; the same for the
# processes that tests start
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


# a module goes to one worker: one that takes minutes must not begin when the others are done
LONGEST = (
    "test_fsdp2",
    "test_tensor_parallel",
    "test_processes",
    "test_checkpoints",
    "test_compiled",
    "test_export",
    "test_plans",
    "test_exported",
    "test_cli_export",
    "test_cli_bench",
    "test_metadata",
    "test_benchmark",
    "test_loop",
)


def pytest_addoption(parser):
    parser.addoption(
        "--members",
        choices=("all", "first", "rest"),
        default="all",
        help="of a test with parameters: the first of them, or the rest",
    )


def pytest_collection_modifyitems(config, items):
    """The longest modules first, each as it is; and the members that are asked for."""
    wanted = config.getoption("--members")
    if wanted != "all":
        firsts = first_members(items)
        chosen = [item for item in items if (item in firsts) == (wanted == "first")]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


def first_members(items):
    """Each test with its first parameters."""
    firsts = {}
    for item in items:
        name = getattr(item, "originalname", item.name)
        firsts.setdefault((item.path, item.cls, name), item)
    return set(firsts.values())


@pytest.fixture(scope="session")
def file_size_limit():
    """Let no file of this process grow beyond so many bytes, as if the disk were full."""

    @contextmanager
    def limited(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(scope="session")
def imported():
    """Import a file of the repository that is in no package, anew each time, by its path."""

    def load(path):
        file = Path(__file__).parents[1] / path
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
