"""The tables of the app, one file each."""
