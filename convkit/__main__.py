"""``python -m convkit``: the same commands as the `convkit` script."""

from convkit.cli import main

if __name__ == "__main__":
    main()
