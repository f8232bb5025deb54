"""The three models of a lens: the frozen target, the decoder that speaks, the encoder that reads."""
