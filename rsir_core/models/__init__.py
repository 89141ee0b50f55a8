"""From pixels to a descriptor: detector, key region, classifier, PCA, and the bundle that holds them."""
