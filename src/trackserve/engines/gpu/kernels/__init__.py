"""Kernels in the Triton language, a file a stage; :mod:`..` calls them.

They run on NVIDIA and AMD devices, and on any processor in Triton's interpreter (TRITON_INTERPRET=1).

    B  rows (hits, edges, triplets) that one program works on    W  width of a layer, a power of two
"""
