"""Other libraries' errors in messages of one line."""


def first_line(error: Exception) -> str:
    """Of its text, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
