"""The `xpmem-emu` command: text in, client library calls, tables or documents out.

The command line knows no kernel: whatever it shows or changes goes through the client library,
as any other program's request would. One module per group of commands; what they share is

* `parameters`: text to values, with errors that show how to write it right,
* `session`: which cluster, which partitions, how talkative,
* `output`: rows and records as table, wide, json, jsonl or yaml,
* `failure`: every way to fail as one line and one exit code.

Data goes to stdout, talk goes to stderr.
"""
