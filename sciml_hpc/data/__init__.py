"""How samples move: shards, staging, loader."""
