"""Serve a page on this machine that shows an agent's world and its dream side by side: `dreamer dream`."""
