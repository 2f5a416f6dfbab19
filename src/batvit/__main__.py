"""``python -m batvit``."""

from batvit.cli import main

raise SystemExit(main())
