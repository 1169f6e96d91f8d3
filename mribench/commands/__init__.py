"""One file a command: read the options, call one arrow, print."""
