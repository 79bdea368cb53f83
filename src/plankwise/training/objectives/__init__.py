"""What a model is trained and scored for. A new objective is one file here and one line in the registry."""
