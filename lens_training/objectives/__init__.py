"""What a lens is trained for: estimators of the gradient through text, and the terms of the loss."""
