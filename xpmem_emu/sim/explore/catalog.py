"""What there is to explore, and how deep: names and numbers alone, for who completes or checks what
somebody typed, and shall not wait for a kernel. The worlds are in `worlds`.
"""

WORLD_NAMES = (
    "inflight-race",
    "two-recalls",
    "fence-wake",
    "detach-fault",
    "remove-attach",
    "exec-close",
    "session-change",
    "far-remove",
    "boot-over",
    "kill-fault",
    "kill-recall",
    "poison-fence",
)
DEPTH_MAX = 6
"""Deviations of a schedule. `tree` has three bits for how many are left, and 0 for no entry."""
