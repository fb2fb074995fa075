"""How to install what only some commands need: from the checkout, since no index has this project's name."""


def install(extra: str) -> str:
    """The command that installs what `extra` of pyproject.toml names, in the top folder of the checkout."""
    return f"pip install -c constraints.txt -e '.[{extra}]'"
