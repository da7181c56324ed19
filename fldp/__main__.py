"""``python -m fldp``: the command line."""

from fldp.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
