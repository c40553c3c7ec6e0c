"""The engine for GPUs: what its kernels take of a device, what an event should take, what it took."""
