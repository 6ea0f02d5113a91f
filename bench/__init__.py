"""Benchmarks: this mesh beside no mesh and beside another proxy, alternating in one run. `./dev bench --help`."""
