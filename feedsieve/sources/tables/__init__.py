"""CSV files: rows, encodings, times and identifiers as people have them."""
