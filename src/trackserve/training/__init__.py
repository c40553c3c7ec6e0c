"""Training the three networks; nothing else imports this package."""
