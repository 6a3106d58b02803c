"""The networks that tools/export_models.py exports, and what torch counts in them."""
