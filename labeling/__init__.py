"""The labelling loop: which messages to label next, into Label Studio, and the labels back."""
