"""The page benchmarks/results/groundtruth-v2.md, section by section."""
