"""Scenarios: a story about shared memory and failures, told once, true on every ground.

    file --story--> steps --runner--> a ground: simulator, real processes
                                      |
              verdict <--checks-- its event stream, its counts

A step is a call of a task, a fault, a wait for something that must happen, or a check. The story
knows no ground and a ground knows no story; `docs/scenarios.md` is the reference of the format.
"""
