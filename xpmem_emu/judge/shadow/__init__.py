"""A model of what tasks may do and what their memory holds, from calls and answers alone.

    calls, answers --model--> tasks, pages, files, permits --judge--> S13, S14

It knows nothing of frames, messages and recalls. What overlaps in time may have happened in either
order: then the model forgets what it knew there, and judges nothing until it knows again.
"""
