"""The command `radius-bridge`."""
