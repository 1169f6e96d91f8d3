"""A package of plug-ins for mribench."""
