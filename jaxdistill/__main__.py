"""``python -m jaxdistill`` is the command ``jaxdistill``."""

from jaxdistill.cli import run

if __name__ == "__main__":
    run()
