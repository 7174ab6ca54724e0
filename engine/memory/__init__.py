"""Where bytes live: address ranges that outlast their memory, and how much memory there is."""
