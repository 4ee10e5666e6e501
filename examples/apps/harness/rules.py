"""How the lines of a proxy.toml are counted, so that few lines are not merely long ones."""

LINES = 15
WIDTH = 100


def lines(text):
    """Lines of TOML: those that are neither blank nor a comment alone."""
    stripped = (line.strip() for line in text.splitlines())
    return sum(line != "" and not line.startswith("#") for line in stripped)


def problems(text):
    found = []
    if lines(text) > LINES:
        found.append(f"proxy.toml has {lines(text)} lines; {LINES} is the limit")
    if any(len(line) > WIDTH for line in text.splitlines()):
        found.append(f"proxy.toml has a line of more than {WIDTH} characters")
    return found
