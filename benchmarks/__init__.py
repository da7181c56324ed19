"""Side-by-side runs against other systems; results are committed under `benchmarks/results/`."""
