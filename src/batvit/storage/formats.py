"""The suffixes of figures and pictures; commands check them before they import what draws."""

FIGURE_FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
"""the suffix of a figure, and matplotlib's name of the format"""

PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""the suffix of a picture, and Pillow's name of the format"""
