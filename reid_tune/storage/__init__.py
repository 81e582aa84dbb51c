"""Files of other machines: objects of S3, and their copies here."""
