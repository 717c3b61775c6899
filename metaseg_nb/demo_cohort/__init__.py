"""The demo cohort, always called *synthetic*: brains with planted metastases, made from the MNI152 template."""
