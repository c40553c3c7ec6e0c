"""The service under load: overhead, throughput, overload, faults."""
