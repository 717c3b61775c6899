"""Helper package of the brain metastasis segmentation workbook; the notebooks tell the story."""
