"""What a client spends: processor time, bytes on the wire, and what compact encodings would save."""
