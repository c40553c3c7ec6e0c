"""Training the four networks; nothing else imports this package."""
