"""The kernels, in Triton's language: what runs on the GPU. The launchers are the folder above."""
