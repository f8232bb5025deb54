"""The smallest workflow that looks at what the model was thinking."""
