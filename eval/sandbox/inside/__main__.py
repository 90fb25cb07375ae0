"""``python -m inside CALLER``; a folder's main module, so that the launcher needs no package of ours."""

from .launcher import main

main()
