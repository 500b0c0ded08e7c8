"""What can go wrong between the agent and its kernel."""


class DataplaneError(Exception):
    """The kernel, or a program that talks to it, refused. The message names the set or program, and why."""
