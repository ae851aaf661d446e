"""The base class of the package's errors."""


class PoseError(Exception):
    """An error that the user can fix; its message names value and remedy in one line."""


def one_line(error: Exception) -> str:
    """Return the text of another library's error without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
