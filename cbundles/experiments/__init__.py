"""The paper's experiments, a page each. They yield results and touch no files."""
