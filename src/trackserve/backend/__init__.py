"""What runs inside tritonserver: the served models with their queue, and the stages of an ensemble."""
