"""`python -m normwright` is the command `normwright`."""

from normwright.cli import main

if __name__ == "__main__":
    main()
