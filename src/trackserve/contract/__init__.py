"""What client, server and load tools agree on: tensors, metrics, what a model states about itself."""
