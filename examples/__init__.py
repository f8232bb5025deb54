"""Runnable examples; `wonder dev` in the repository's root hosts their workflows."""
