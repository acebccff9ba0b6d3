.PHONY: check test test-slow format

check:
	ruff check .
	ruff format --check .
	pyright

test:
	pytest

test-slow:
	pytest --slow -m slow

format:
	ruff check --fix .
	ruff format .
