"""The kinds of training, one file each, and the table that names them. A new kind is one file and one line."""
