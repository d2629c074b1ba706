"""The operations of a plan: carried out as calls, and what came of them written down."""
