"""Property tests try the same examples every time; no clock decides whether they pass."""

import torch
from hypothesis import settings

settings.register_profile("batvit", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("batvit")

# two threads that wait for one another on a busy machine are slower than one
torch.set_num_threads(1)
