"""Models that timm does not have, in timm's registry."""
