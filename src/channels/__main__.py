"""`python -m channels`: the `channels` command."""

import sys

from channels.cli import main

if __name__ == "__main__":
    sys.exit(main())
