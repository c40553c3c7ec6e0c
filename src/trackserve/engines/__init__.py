"""The engines that run a bundle, behind one interface; `registry` finds them by name."""
