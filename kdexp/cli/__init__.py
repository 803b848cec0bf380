"""The programs, thin: they read the command line and call the package; nothing imports them."""
