"""Arguments that several commands of training share."""
