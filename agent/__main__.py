"""The console script `radius-bridge-agent`, and `python -m agent`."""

import sys


def main() -> None:
    """Runs the command; says what to install where only the bridge's part is."""
    try:
        from agent.cli import app  # noqa: PLC0415 — what is missing is only known when asked for

        app()
    except ModuleNotFoundError as error:
        sys.exit(f"radius-bridge-agent: {error.name} is missing: install radius-bridge[agent] (requirements/agent.txt)")


if __name__ == "__main__":
    main()
