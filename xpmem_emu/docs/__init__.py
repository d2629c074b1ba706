"""What the pages of docs/ and the README show of the code, made from the code: `make docs`."""
