"""The catalogue of hostile inputs as tests, see README.md beside this file."""
