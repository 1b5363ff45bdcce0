"""The attacks and the kernel density beside public libraries: time, quality, and faults found by measurement."""
