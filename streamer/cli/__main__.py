"""`python -m streamer.cli`, where the console script is not on the path."""

from streamer.cli import main

raise SystemExit(main())
