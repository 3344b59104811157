"""`python -m sdxl_mel` is the command `sdxl-mel`."""

import sys

from sdxl_mel.cli import main

sys.exit(main())
