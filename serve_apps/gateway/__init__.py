"""The application at "/": the OpenAI API and nnsight's remote protocol in front of all models.

Never imports torch or nnsight, and never unpickles or decompresses what a client sent.
"""
