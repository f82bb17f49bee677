"""The catalogue of hostile inputs as tests, see README.md beside this file."""

import pytest

# Before they are imported, so that their assertions tell what was compared.
pytest.register_assert_rewrite("hostile.arena")
