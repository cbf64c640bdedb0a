"""The sample corpus that the project makes itself, so that everything runs with no data given."""
