"""mribench trains, samples and ranks 3D generative models of brain MRI."""

__version__ = "0.1.0"
