"""Load on a server: generate it, measure it, search the settings that serve it best."""
