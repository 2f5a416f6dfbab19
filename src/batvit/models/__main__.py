"""Run a script with batvit's models in timm's registry.

``python -m batvit.models train.py DATA --model bat_deit_small_patch16_224 --model-kwargs
keep_rate=0.7``, and on several GPUs ``torchrun --nproc-per-node 8 -m batvit.models train.py ...``.
"""

import runpy
import sys
from argparse import ArgumentParser
from pathlib import Path

# the script's own arguments remain
del sys.argv[0]
if not sys.argv or not Path(sys.argv[0]).is_file():
    missing = f"no such script: {sys.argv[0]}" if sys.argv else "no script given"
    command = ArgumentParser(prog="python -m batvit.models")
    command.exit(
        2, f"{command.prog}: {missing}; give one, such as timm's train.py, and its arguments\n"
    )
# the script finds the files beside it, unless Python was told not to look there
if not sys.flags.safe_path:
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
runpy.run_path(sys.argv[0], run_name="__main__")
