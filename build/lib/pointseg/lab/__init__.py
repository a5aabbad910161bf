"""From a recipe to a record: runs, notebooks, evaluation."""
