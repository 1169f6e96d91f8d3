"""MS-SSIM's loops for a CPU, as vector code."""
