"""Files on this machine and in S3, behind one interface."""
