"""Networks, layers, optimizer and weight averaging."""
