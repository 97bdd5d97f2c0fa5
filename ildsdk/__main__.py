"""``python -m ildsdk``."""

from ildsdk.cli import main

if __name__ == "__main__":
    main()
