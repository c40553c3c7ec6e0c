"""How the service grows: `trackserve plan` beside a measured service, and many hosts on one machine."""
