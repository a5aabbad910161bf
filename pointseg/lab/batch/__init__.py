"""Many runs as one batch: what is missing, in which order, by whom, and how it stands."""
