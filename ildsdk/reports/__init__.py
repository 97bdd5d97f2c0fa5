"""Answers made readable: terminal text, one HTML page, and the small pictures both need.

Nothing is imported here: Jinja2 and Pillow load with the module that needs them.
"""
