"""radius-bridge: RADIUS accounting to user groups in Consul."""

from radius_bridge import lean

with lean.without("rich"):  # it is for tracebacks, and would show the values of local variables in them
    import structlog  # noqa: F401 — so that whoever imports it later gets it like this
