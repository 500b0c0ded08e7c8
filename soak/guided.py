"""One target under the coverage-guided fuzzer: `python -m soak.guided TARGET SEEDS [libFuzzer's options]`.

A process of its own, because the fuzzer instruments what it imports and ends the process.
"""

import sys

import atheris

with atheris.instrument_imports(include=["radius_bridge"]):
    from soak.targets import TARGETS


def main() -> None:
    """Does not return; the exit code is not 0 if the target raised."""
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
