"""x"""

from tests.acceptance.frame import Report, Scenario
from tests.lab.processes import PROJECT

SCENARIO = Scenario("faults", "one host", lambda quick: Report(), PROJECT / "docs/reliability.md")
