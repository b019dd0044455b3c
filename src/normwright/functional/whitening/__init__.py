"""What whitening is made of: the covariance, its inverse root and the projection, with their derivatives."""
