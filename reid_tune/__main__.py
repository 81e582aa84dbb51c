"""`python -m reid_tune` is `reid-tune`."""

from reid_tune.cli import main

main()
