"""python -m sciml_hpc"""

import sys

from sciml_hpc.cli import main

sys.exit(main(sys.argv[1:]))
