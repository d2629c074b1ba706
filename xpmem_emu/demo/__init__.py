"""The demo: a program for three partitions, as anybody could write it with the client library."""
