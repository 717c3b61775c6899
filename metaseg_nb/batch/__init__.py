"""Execute notebooks: one by one, or a whole study, on this machine or as jobs of a cluster; and show its progress."""
