"""The application that serves one model: text generation and traced blocks, taking turns.

torch, transformers and nnsight are imported inside the replica only: Serve's build task and the
daemon read this package cheaply.
"""
