"""`python -m fairdedup`: the command line."""

from fairdedup.cli import main

if __name__ == "__main__":
    main()
