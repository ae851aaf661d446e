"""The root of the package's errors."""


class PoseError(Exception):
    """Something a user can mend; the message names the value and the remedy in one line."""


def one_line(error: Exception) -> str:
    """The text of an error of another library, without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
