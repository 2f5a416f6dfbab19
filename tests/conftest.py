"""Property tests try the same examples every time, and no clock decides whether they pass."""

from hypothesis import settings

settings.register_profile("batvit", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("batvit")
