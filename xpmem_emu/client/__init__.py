"""The client library: what a program needs to talk to partitions. `blocking` and `awaited` are its
two forms; users import both from `xpmem_emu` itself."""
