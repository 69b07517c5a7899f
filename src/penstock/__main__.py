"""The console script's entry."""

import sys


def main() -> int:
    """Run the command line."""
    from penstock.cli.main import main as cli  # noqa: PLC0415 - keeps ``python -m penstock`` importable by tools

    return cli()


if __name__ == "__main__":
    sys.exit(main())
