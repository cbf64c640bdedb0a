"""Training: labelled messages in, an encoder and a classifier in the model store out."""
