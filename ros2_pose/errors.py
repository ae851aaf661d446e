"""The root of the package's errors."""


class PoseError(Exception):
    """Something a user can mend; the message names the value and the remedy in one line."""
