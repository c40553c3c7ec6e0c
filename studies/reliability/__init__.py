"""What the service withstands: hostile requests, files and bundles, hours of use, and what the guard costs."""
