"""python -m sciml_hpc"""

import os
import sys

# pydantic would read the metadata of every installed package in search of plug-ins: a storm from many ranks.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")

from sciml_hpc.cli import main

sys.exit(main(sys.argv[1:]))
