"""Files on this machine and in S3, with one interface."""
