"""``python -m cbundles`` is the command ``cbundles``."""

from cbundles.cli import main

main()
