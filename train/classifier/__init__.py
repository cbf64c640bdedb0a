"""Fits the classifier: word model, head, LightGBM, calibration and cascade."""
