"""Who says what a picture shows: a small network taught on the dataset's own labels."""
