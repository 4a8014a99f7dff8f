"""The command line: flags, streams, exit codes, and how a run is started from them."""
