"""Jobs run by hand, one a file; nothing that serves imports them."""
