"""What every test that starts a server gives it."""

FREE_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
MAX_HITS = 2000
