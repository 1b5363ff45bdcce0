"""``python -m pdm_lightning`` is ``pdml``."""

import sys

from pdm_lightning.cli import main

sys.exit(main())
