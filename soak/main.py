"""The command line of the soaks; see `script/soak --help`."""

import argparse
import json
import signal
import sys
from datetime import UTC, datetime

from soak import fuzz, identity, lanes
from soak.frame import PAGE, Failed, Soak, entry, progress

SOAKS: dict[str, Soak] = {soak.name: soak for soak in (fuzz.SOAK, identity.SOAK, lanes.SOAK)}
"""All there are, by name."""


def main() -> int:
    """Runs one soak; gives the exit code."""
    listing = "\n".join(f"  {soak.name:<8} {soak.about}" for soak in SOAKS.values())
    parser = argparse.ArgumentParser(
        prog="script/soak",
        description="Runs one thing for long. What came of it is printed and added to docs/soak.md.",
        epilog=f"soaks:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="which (below)")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N", help="for how long (10)")
    parser.add_argument("--no-page", action="store_true", help="leave docs/soak.md as it is")
    arguments = parser.parse_args()
    soak = SOAKS.get(arguments.name)
    if soak is None or arguments.minutes <= 0:
        what = (
            f"there is no soak {arguments.name!r}; there are:\n{listing}" if soak is None else "--minutes: 0 is too few"
        )
        print(what, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is cleaned up
    progress(f"{soak.name}: {soak.about}, {arguments.minutes:g} minutes")
    try:
        figures = soak.run(arguments.minutes * 60)
    except Failed as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"soak": soak.name, "minutes": arguments.minutes, "figures": figures}))
    if not arguments.no_page:
        with PAGE.open("a", encoding="utf-8") as page:
            page.write(entry(soak.name, arguments.minutes, figures, datetime.now(UTC).date()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
