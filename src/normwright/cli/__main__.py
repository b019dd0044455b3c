"""`python -m normwright.cli` is the command `normwright`."""

from normwright.cli import main

if __name__ == "__main__":
    main()
