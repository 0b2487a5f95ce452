"""Testing trained networks and predicting with them."""
