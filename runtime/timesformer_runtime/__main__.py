"""The command ``timesformer``, also as ``python -m timesformer_runtime``.

The library works without click and rich; only the command needs them.
"""

import sys


def main() -> None:
    """Runs the command; says what to install where a package of the command is missing."""
    try:
        from timesformer_runtime.cli import main as run  # noqa: PLC0415

        run()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in {"click", "rich"}:
            raise
        print(
            f"timesformer: the command needs {package}, which is not installed: "
            "pip install click rich",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
