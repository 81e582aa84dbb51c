"""From a search space to a registered model: the file, the search on Ray, the stages, the report."""
