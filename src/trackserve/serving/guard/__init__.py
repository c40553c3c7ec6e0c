"""The guard: Envoy in front of one or several tritonservers, looking at each request before they do."""
