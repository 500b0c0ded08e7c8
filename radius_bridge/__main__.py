"""The console script `radius-bridge`, and `python -m radius_bridge`."""

import sys


def main() -> None:
    """Runs the command; says what to install where only the agent's part is."""
    try:
        from radius_bridge.cli.main import app  # noqa: PLC0415 — what is missing is only known when asked for

        app()
    except ModuleNotFoundError as error:
        sys.exit(f"radius-bridge: {error.name} is missing: install radius-bridge[bridge] (requirements/bridge.txt)")


if __name__ == "__main__":
    main()
