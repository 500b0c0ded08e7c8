"""What the running agent answers at its control socket, besides its status."""

from typing import Any

from agent.dataplane.errors import DataplaneError
from agent.enforce import Enforcer
from agent.guard import Kind
from agent.refused import RefusedLog
from agent.why import Situation, explain, find_service, parse_address
from radius_bridge.policy.expiry import is_over
from radius_bridge.policy.members import Prefix, user_of


class Answers:
    """Questions about one enforcer, and about who was refused (None: the configuration logs nobody)."""

    def __init__(self, enforcer: Enforcer, refused: RefusedLog | None) -> None:
        self._enforcer = enforcer
        self._refused = refused

    def status(self, _: str = "") -> dict[str, Any]:
        """The enforcer's, and who was refused most often."""
        answer = self._enforcer.status()
        if self._refused is not None:
            answer["refused_from"] = self._refused.table.top()
            if self._refused.error:
                answer["alarms"] = [*answer["alarms"], f"who is refused is only counted: {self._refused.error}"]
        return answer

    async def status_now(self, _: str) -> dict[str, Any]:
        """The same, with everybody counted who was refused until now."""
        await self._enforcer.count_refused()
        return self.status()

    async def verify(self, _: str) -> dict[str, Any]:
        """Where the kernel is not as desired."""
        try:
            found = await self._enforcer.differences()
        except DataplaneError as error:
            return {"error": str(error)}
        if found is None:
            return {"error": "nothing is enforced yet: Consul was not read"}
        return {
            "differences": [
                {
                    "what": each.what,
                    "missing": each.missing,
                    "extra": each.extra,
                    "wrong": each.wrong,
                    "text": str(each),
                }
                for each in found
            ]
        }

    def why(self, question: str) -> dict[str, Any]:
        """Why an address gets into a service: `ADDRESS SERVICE`."""
        address, _, service = question.partition(" ")
        learning, now = self._enforcer.learning, self._enforcer.now()
        enforced = self._enforcer.enforced
        listed = learning.host.services or (enforced.services if enforced else ())
        held = list(learning.guard.held)
        situation = Situation(
            enforced,
            {each.name: each.members.keys() for each in held if each.kind is Kind.REMOVAL},
            {each.name: each.members.keys() for each in held if each.kind is Kind.OPENING},
        )
        try:
            client, wanted = parse_address(address), find_service(service.strip(), listed)
        except ValueError as error:
            return {"error": str(error), "is_usage": True}
        return explain(client, wanted, learning.host, situation, now).as_json()

    def refused(self, _: str) -> dict[str, Any]:
        """Who was refused, the last one first."""
        if self._refused is None:
            return {"error": "the configuration logs nobody: refused.per_second is 0"}
        enforced = self._enforcer.enforced
        table = self._refused.table
        return {
            "error": self._refused.error,
            "observe": self._enforcer.is_observing,
            "refused": table.rows([each.name for each in enforced.services] if enforced else [], self._user_of),
            "counters": dict(table.counters),
        }

    def _user_of(self, address: Prefix) -> str:
        """Who is behind an address, as far as this host follows users' groups; empty if it is not known."""
        now = self._enforcer.now()
        holders = self._enforcer.learning.host.holders(address)
        users = [user_of(group) for group, end in holders.items() if not is_over(end, now)]
        return ", ".join(sorted(filter(None, users)))
