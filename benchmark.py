"""The door of the suite: `python benchmark.py --suite all`. Everything behind it lives in `genrec_bench`."""

import sys

from genrec_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
