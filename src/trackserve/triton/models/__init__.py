"""The server's side: one short entry for Triton's python backend per model."""
