"""The experiments, one file each: see the package above for how to add one."""
