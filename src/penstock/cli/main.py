"""The console script's door: answers --version at once and loads the commands for everything else."""

import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments in (["--version"], ["version"]):
        import penstock  # noqa: PLC0415 - the version must not wait for the framework

        sys.stdout.write(f"penstock/{penstock.__version__}\n")
        return 0
    if arguments[:1] == ["serve"] and not {"-h", "--help"} & set(arguments):
        from penstock.app.nursery.early import start_early  # noqa: PLC0415 - no other command has children

        # It imports what the children need while this process imports what the command needs.
        start_early()
    from penstock.cli.root import run  # noqa: PLC0415 - loaded only when a command runs

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
