"""``python -m lifelong``."""

from lifelong.cli import main

raise SystemExit(main())
