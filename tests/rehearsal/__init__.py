"""A rehearsal of real runs: commands as users type them, on narrow twins of published models."""
