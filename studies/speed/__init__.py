"""The speed of the native engine, and what each technique gives."""
