"""For test authors: `explored` tests, and a live host to race guests on. See docs/pytest.md."""
