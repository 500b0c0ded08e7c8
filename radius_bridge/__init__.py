"""radius-bridge: RADIUS accounting to user groups in Consul."""
