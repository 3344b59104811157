"""Benchmarks: our tools beside their peers in the same run. `python -m bench NAME`, or all of them into report.md."""
