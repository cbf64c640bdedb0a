"""The labelling loop: choose messages, label them in Label Studio, and merge the labels."""
