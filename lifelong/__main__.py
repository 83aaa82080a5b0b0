"""``python -m lifelong``."""

from lifelong.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
