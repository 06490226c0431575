"""Encoders, a file a kind; `named.py` finds them."""
