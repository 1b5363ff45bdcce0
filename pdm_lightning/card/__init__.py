"""The evaluation card: checks that judge a study on its own results."""
