"""The launcher: from a bundle and settings to a running tritonserver, or a fleet of them."""
