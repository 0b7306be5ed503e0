"""The demo: a page in the browser that ranks captions for an image and learns from a few pairs.

A loaded model and folders of prompts enter; a server leaves, for the command `demo` and for a
Space. What a request does is in `demo_requests.py`, without Gradio; `demo_page.py` is the page, and
the only file that draws with it. Only commands import this package.
"""
