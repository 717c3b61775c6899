"""Execute notebooks: one by one, or a whole study, on this machine or as jobs of a cluster; and say where it stands."""
