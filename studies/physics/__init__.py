"""The physics of a bundle, beside a Kalman filter, in every condition."""
