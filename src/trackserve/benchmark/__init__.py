"""Load on a server, what became of it, and the search for the settings that serve best."""
