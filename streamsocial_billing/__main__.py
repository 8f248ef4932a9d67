"""`python -m streamsocial_billing` = the command `streamsocial-billing`."""

from streamsocial_billing.cli.main import main

if __name__ == "__main__":
    main()
