"""What serves each call, by subject: functions of a kernel, the call, its task and its bulk."""
