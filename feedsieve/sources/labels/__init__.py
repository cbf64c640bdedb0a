"""Files of labelled messages."""
