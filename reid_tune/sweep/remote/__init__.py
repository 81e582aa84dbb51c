"""A sweep whose files are at s3://: copies on the machines that read and write them."""
